"""The virtual environment with the locked Python packages and the project itself."""

import hashlib
import importlib.util
import subprocess
import sys
import venv
from pathlib import Path

from toolchain.paths import ROOT, VENV, virtualenv_bin
from toolchain.report import SetupError, run, step

OLDEST_PYTHON = (3, 11)
RUNTIME = "requirements.txt"
DEVELOPMENT = "requirements-dev.txt"
# Has the project's own metadata, such as its version and the `cachectl` command.
PROJECT = "pyproject.toml"


def ensure(lock: str) -> None:
    """Install the packages of a lock file and the project, unless they are installed already.

    The project is installed in place, so that `cachectl` runs the checkout's code. The development
    lock is a superset of the runtime lock, so an environment with the former satisfies the latter.
    """
    if not is_ready(lock):
        _install(lock)
    if not _installed(PROJECT):
        _pip("install", "--no-deps", "--no-build-isolation", "--editable", str(ROOT))
        _stamp(PROJECT).write_text(_wanted(PROJECT))


def is_ready(lock: str) -> bool:
    """Whether the packages of a lock file are installed."""
    return _installed(lock) or (lock == RUNTIME and _installed(DEVELOPMENT))


def why_not_created() -> str:
    """Return why this Python can create no virtual environment; empty if it can."""
    if sys.version_info < OLDEST_PYTHON:
        return f"found Python {'.'.join(map(str, sys.version_info[:3]))}; allowed: 3.11 or later"
    # Debian has it in a package of its own.
    if not importlib.util.find_spec("ensurepip"):
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        return (
            f"Python has no ensurepip; on Debian and Ubuntu: apt-get install python{version}-venv"
        )
    return ""


def _install(lock: str) -> None:
    if problem := why_not_created():
        raise SetupError(problem)
    with step(f"Python packages of {lock}"):
        if not (virtualenv_bin() / "python").exists():
            _create()
        _pip("install", "--require-hashes", "--requirement", str(ROOT / lock))
        _stamp(lock).write_text(_wanted(lock))


def _pip(*arguments: str) -> None:
    pip = [str(virtualenv_bin() / "python"), "-m", "pip", "--disable-pip-version-check", "--quiet"]
    run([*pip, *arguments])


def _create() -> None:
    try:
        venv.create(VENV, with_pip=True, clear=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise SetupError(f"cannot create a virtual environment: {error}") from error


def _installed(lock: str) -> bool:
    stamp = _stamp(lock)
    return stamp.exists() and stamp.read_text() == _wanted(lock)


def _stamp(lock: str) -> Path:
    return VENV / f".{lock}.sha256"


def _wanted(lock: str) -> str:
    interpreter = f"{sys.implementation.cache_tag} {VENV}\n"
    return hashlib.sha256(interpreter.encode() + (ROOT / lock).read_bytes()).hexdigest()
