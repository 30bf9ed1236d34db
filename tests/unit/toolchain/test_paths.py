import ast
import sys
from pathlib import Path

import pytest

from toolchain import paths
from toolchain.paths import BIN, CACHE, PULUMI_HOME, ROOT, STATE, VENV


@pytest.mark.parametrize("place", [VENV, CACHE, STATE], ids=lambda place: place.name)
def test_what_is_made_is_in_the_checkout_and_ignored_by_git(place: Path) -> None:
    ignored = (ROOT / ".gitignore").read_text().splitlines()

    assert place.parent == ROOT
    assert f"{place.name}/" in ignored


def test_what_is_built_can_be_removed_without_the_state() -> None:
    assert CACHE in BIN.parents
    assert CACHE in PULUMI_HOME.parents
    assert CACHE not in STATE.parents


@pytest.mark.parametrize(("system", "folder"), [("posix", "bin"), ("nt", "Scripts")])
def test_programs_of_the_environment_are_where_the_system_has_them(
    monkeypatch: pytest.MonkeyPatch, system: str, folder: str
) -> None:
    monkeypatch.setattr("os.name", system)

    assert str(paths.virtualenv_bin()).endswith(folder)


def imported(module: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(str(node.module))
    return {name.partition(".")[0] for name in names}


@pytest.mark.parametrize(
    "module", sorted((ROOT / "toolchain").glob("*.py")), ids=lambda path: path.stem
)
def test_the_toolchain_needs_no_package_since_it_installs_them(module: Path) -> None:
    assert imported(module) <= {*sys.stdlib_module_names, "toolchain"}
