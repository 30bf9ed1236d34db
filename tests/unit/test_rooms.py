"""Imports go one way between the rooms, so that each can be read without those above it."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "talos_registry_cache"

# Modules of the package that belong to no room.
SHARED = {"endpoint", "errors", "sizes"}
ALLOWED = {
    f"{PACKAGE}/registry": set(),
    f"{PACKAGE}/talos": set(),
    f"{PACKAGE}/engine": {"registry"},
    f"{PACKAGE}/cli": {"registry", "talos", "engine"},
    f"{PACKAGE}/review": {"registry", "talos", "engine"},
}


@pytest.mark.parametrize("room", ALLOWED)
def test_a_room_imports_only_those_below_it(room: str) -> None:
    own = room.rpartition("/")[2]
    rooms = {module.split(".")[1] for module in imported(room) if module.startswith(f"{PACKAGE}.")}

    assert rooms - {own} - SHARED <= ALLOWED[room]


def test_the_package_knows_nothing_of_pulumi_but_the_preview() -> None:
    for room in ALLOWED.keys() - {f"{PACKAGE}/review"}:
        tops = {module.split(".")[0] for module in imported(room)}
        assert tops.isdisjoint({"pulumi", "pulumi_docker", "components"}), room


def test_the_components_import_each_other_by_relative_names() -> None:
    """The wheel has them within the package, and a checkout beside it."""
    assert "components" not in {module.split(".")[0] for module in imported("components")}


def test_the_toolchain_needs_nothing_that_it_installs() -> None:
    loaded = "import sys, toolchain.__main__; print(*sys.modules)"
    # -S: without the packages of the environment.
    printed = subprocess.run(
        [sys.executable, "-S", "-c", loaded], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout

    shared = {module for module in printed.split() if module.startswith(PACKAGE)}
    assert shared == {
        PACKAGE,
        f"{PACKAGE}.engine",
        f"{PACKAGE}.engine.selection",
        f"{PACKAGE}.engine.supported",
        f"{PACKAGE}.errors",
    }


def imported(room: str) -> Iterator[str]:
    """The absolute names of all modules that the files of a room import."""
    files = list((ROOT / room).rglob("*.py"))
    assert files
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                yield node.module
                yield from (f"{node.module}.{alias.name}" for alias in node.names)
