from pathlib import Path

import pytest

from talos_registry_cache.cli import output
from talos_registry_cache.cli.errors import CachectlError

FILES = {"one.yml": "one\n", "more/two.json": "two\n"}


def test_files_are_written_below_the_folder(tmp_path: Path) -> None:
    output.put(FILES, tmp_path / "new")

    for name, content in FILES.items():
        assert (tmp_path / "new" / name).read_text() == content


def test_private_files_are_read_by_their_owner_only(tmp_path: Path) -> None:
    output.put(FILES, tmp_path, is_private=True)

    assert {(tmp_path / name).stat().st_mode & 0o777 for name in FILES} == {0o600}


def test_without_a_folder_files_are_printed_with_their_names(
    capsys: pytest.CaptureFixture[str],
) -> None:
    output.put(FILES, None)
    output.put({"alone.yml": "[alone]\n"}, None)

    assert capsys.readouterr().out == "# one.yml\none\n# more/two.json\ntwo\n[alone]\n"


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "more").touch()

    with pytest.raises(CachectlError, match=r"two\.json cannot be written"):
        output.put(FILES, tmp_path)
