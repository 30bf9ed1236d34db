from pathlib import Path

import pytest
from typer.testing import CliRunner

from talos_registry_cache.cli.__main__ import COMMANDS, app

PYPROJECT = Path(__file__).resolve().parents[3] / "pyproject.toml"


@pytest.mark.parametrize("arguments", [[], ["--help"]])
def test_help_names_the_purpose_and_the_commands(arguments: list[str]) -> None:
    shown = CliRunner().invoke(app, arguments).output

    assert "Work with the registry caches of a stack" in shown
    for command in COMMANDS:
        assert command.__name__.rstrip("_") in shown
