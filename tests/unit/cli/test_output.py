from pathlib import Path

import pytest

from talos_registry_cache.cli import output
from talos_registry_cache.cli.errors import CachectlError

FILES = {"one.yml": "one\n", "more/two.json": "two\n"}


@pytest.mark.parametrize("is_private", [False, True])
def test_files_are_written_below_the_folder(tmp_path: Path, *, is_private: bool) -> None:
    output.put(FILES, tmp_path / "new", is_private=is_private)

    for name, content in FILES.items():
        path = tmp_path / "new" / name
        assert path.read_text() == content
        assert (path.stat().st_mode & 0o777 == 0o600) or not is_private


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
