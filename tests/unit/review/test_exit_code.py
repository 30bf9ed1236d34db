"""The exit code of the command."""

import pytest

from talos_registry_cache.review.__main__ import exit_code
from talos_registry_cache.review.model import Change, Fate, Operation, Preview, StackPreview

UPDATED = Change("x", "t", Operation.UPDATE, (), Fate.NO_DATA)
LOST = Change("x", "t", Operation.DELETE, (), Fate.LOST)


@pytest.mark.parametrize(
    ("stack", "allow", "detailed", "code"),
    [
        (StackPreview("ci"), False, False, 0),
        (StackPreview("ci"), False, True, 0),
        (StackPreview("ci", [UPDATED]), False, False, 0),
        (StackPreview("ci", [UPDATED]), False, True, 2),
        (StackPreview("ci", [LOST]), False, False, 3),
        (StackPreview("ci", [LOST]), False, True, 3),
        (StackPreview("ci", [LOST]), True, False, 0),
        (StackPreview("ci", [LOST]), True, True, 2),
        (StackPreview("ci", [LOST], failure="x"), True, True, 1),
    ],
)
def test_exit_code_is_that_of_the_worst_result(
    stack: StackPreview, *, allow: bool, detailed: bool, code: int
) -> None:
    preview = Preview("main", "0" * 40, [stack])
    assert exit_code(preview, allow_data_loss=allow, detailed=detailed) == code
