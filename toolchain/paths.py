"""The folders of the toolchain, all inside the checkout and ignored by Git."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GO_MODULES = ROOT / "toolchain" / "go"

VENV = ROOT / ".venv"
CACHE = ROOT / ".toolchain"
BIN = CACHE / "bin"
PULUMI_HOME = CACHE / "pulumi-home"

STATE = ROOT / ".state"


def virtualenv_bin() -> Path:
    """Return the folder with the programs of the virtual environment."""
    return VENV / ("Scripts" if os.name == "nt" else "bin")
