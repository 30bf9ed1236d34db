"""Where things are kept, all of it inside the checkout and ignored by Git."""

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
    """The folder of the virtual environment's programs."""
    return VENV / ("Scripts" if os.name == "nt" else "bin")
