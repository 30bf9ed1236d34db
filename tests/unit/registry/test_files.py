"""Files are read up to a limit."""

from pathlib import Path

import pytest

from talos_registry_cache.registry import files


def test_a_file_within_the_limit_is_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("ä")

    assert files.read_text(path, 2) == "ä"


@pytest.mark.parametrize("path", ["file", "/dev/zero"])
def test_a_larger_file_is_refused(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").write_text("ab")

    with pytest.raises(OSError, match="it is larger than 1 bytes"):
        files.read_text(tmp_path / path, 1)


def test_an_invalid_path_cannot_be_read() -> None:
    with pytest.raises(OSError, match="null byte"):
        files.read_text(Path("a\0b"), 1)
