"""Numbers and sizes in messages."""

import pytest

from talos_registry_cache.cli import console


@pytest.mark.parametrize(
    ("number", "shown"), [(0, "0 images"), (1, "1 image"), (2, "2 images"), (1_000, "1000 images")]
)
def test_one_thing_is_in_the_singular(number: int, shown: str) -> None:
    assert console.count(number, "image") == shown


@pytest.mark.parametrize(
    ("number", "shown"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (999_960, "1.0 MB"), (5_240_000_000, "5.2 GB")],
)
def test_bytes_are_formatted_with_a_unit(number: int, shown: str) -> None:
    assert console.size(number) == shown
