"""Files are read up to a limit."""

from pathlib import Path

import pytest

from talos_registry_cache.registry import files


def test_a_file_is_read_up_to_a_limit(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("ä")

    assert files.read_text(path, 2) == "ä"
    for larger in (path, Path("/dev/zero")):
        with pytest.raises(OSError, match="it is larger than 1 bytes"):
            files.read_text(larger, 1)
    with pytest.raises(OSError, match="null byte"):
        files.read_text(Path("a\0b"), 1)
