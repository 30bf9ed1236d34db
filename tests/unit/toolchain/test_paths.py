"""Everything that the toolchain writes is in the checkout, and ignored by Git."""

import ast
import sys
from pathlib import Path

import pytest

from toolchain.__main__ import BUILD_OUTPUT
from toolchain.paths import BIN, CACHE, PULUMI_HOME, ROOT, STATE, VENV


@pytest.mark.parametrize("folder", [VENV, CACHE, STATE], ids=lambda folder: folder.name)
def test_folder_is_in_the_checkout_and_ignored_by_git(folder: Path) -> None:
    assert folder.parent == ROOT
    assert f"{folder.name}/" in (ROOT / ".gitignore").read_text().splitlines()


def test_build_output_can_be_removed_without_the_state() -> None:
    assert CACHE in BIN.parents
    assert CACHE in PULUMI_HOME.parents
    assert STATE not in BUILD_OUTPUT
    assert not {*STATE.parents} & {*BUILD_OUTPUT}


@pytest.mark.parametrize(
    "module", sorted((ROOT / "toolchain").glob("*.py")), ids=lambda path: path.stem
)
def test_toolchain_imports_only_the_standard_library(module: Path) -> None:
    tree = list(ast.walk(ast.parse(module.read_text())))
    names = {alias.name for node in tree if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in tree if isinstance(node, ast.ImportFrom)}
    tops = {name.partition(".")[0] for name in names}
    assert tops <= {*sys.stdlib_module_names, "toolchain"}
