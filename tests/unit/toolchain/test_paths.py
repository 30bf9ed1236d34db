"""The toolchain writes only into ignored folders of the checkout, and `clean` keeps the state."""

from toolchain.__main__ import BUILD_OUTPUT
from toolchain.paths import CACHE, ROOT, STATE, VENV


def test_written_folders_are_ignored_by_git() -> None:
    ignored = (ROOT / ".gitignore").read_text().splitlines()

    assert {f"{folder.relative_to(ROOT)}/" for folder in (VENV, CACHE, STATE)} <= {*ignored}


def test_state_is_no_build_output() -> None:
    assert not {STATE, *STATE.parents} & {*BUILD_OUTPUT}
