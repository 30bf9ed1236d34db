import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from talos_registry_cache.cli.__main__ import COMMANDS, app

PYPROJECT = Path(__file__).resolve().parents[3] / "pyproject.toml"


def test_the_version_is_that_of_the_project() -> None:
    version = tomllib.loads(PYPROJECT.read_text())["project"]["version"]

    ended = CliRunner().invoke(app, ["--version"])

    assert (ended.exit_code, ended.stdout) == (0, f"cachectl {version}\n")


@pytest.mark.parametrize("arguments", [[], ["--help"]])
def test_help_says_what_it_is_for_and_lists_its_commands(arguments: list[str]) -> None:
    shown = CliRunner().invoke(app, arguments).output

    assert "Work with the registry caches of a stack" in shown
    for command in COMMANDS:
        assert command.__name__.rstrip("_") in shown
