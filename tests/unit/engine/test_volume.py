"""The output of commands in a volume is complete, although engines may lose some."""

from collections.abc import Sequence
from typing import Any

import pytest

from talos_registry_cache.engine.volume import MARK, TRIES, Volume, VolumeError

TAGS = "./team/app\n./team/tool\n"
WHOLE = f"{MARK}\n{TAGS}{MARK}\n"
OWNER = f"{MARK}\n65532 65532\n{MARK}\n"


class LosingContainer:
    """A container whose engine loses some of what commands print."""

    def __init__(self, answers: Sequence[str]) -> None:
        self.answers = [OWNER, *answers]
        self.users: list[str] = []

    def start(self) -> None:
        pass

    def exec_run(self, _command: list[str], user: str, **_: Any) -> tuple[int, bytes]:
        self.users.append(user)
        return 0, self.answers.pop(0).encode()


def asked(*answers: str) -> str:
    container: Any = LosingContainer(answers)
    return Volume(container).ask(["busybox", "find", "."])


def test_a_command_runs_as_the_owner_of_the_storage() -> None:
    container: Any = LosingContainer([WHOLE])

    assert Volume(container).ask(["busybox", "find", "."]) == TAGS
    assert container.users == ["0:0", "65532:65532"]


@pytest.mark.parametrize(
    "lost", ["", MARK, f"{MARK}\n", f"{MARK}\n./team/app\n", f"./team/tool\n{MARK}\n"]
)
def test_a_command_runs_again_a_few_times_if_output_is_lost(lost: str) -> None:
    assert asked(lost, WHOLE) == TAGS
    assert asked(f"{MARK}\n{MARK}\n") == "", "empty output is valid"
    with pytest.raises(VolumeError, match="the engine lost the output of find"):
        asked(*[lost] * TRIES)
