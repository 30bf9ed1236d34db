"""Files of other people are read no further than a limit."""

from pathlib import Path

import pytest

from talos_registry_cache.registry import files


def test_a_file_within_its_limit_is_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("ä")

    assert files.read_text(path, 2) == "ä"


def test_a_file_that_is_larger_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("ab")

    with pytest.raises(OSError, match="it is larger than 1 bytes"):
        files.read_text(path, 1)


def test_a_file_without_an_end_is_refused() -> None:
    with pytest.raises(OSError, match="it is larger than 1000 bytes"):
        files.read_text(Path("/dev/zero"), 1000)


def test_what_is_no_name_of_a_file_cannot_be_read() -> None:
    with pytest.raises(OSError, match="null byte"):
        files.read_text(Path("a\0b"), 1)
