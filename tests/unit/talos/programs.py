"""Fake programs: small scripts that really run."""

import subprocess
import sys
import time
from pathlib import Path

VERSION_OUTPUT = """\
Client:
\tTag:         {tag}
\tSHA:         undefined
\tBuilt:
\tGo version:  go1.26.8
\tOS/Arch:     linux/amd64
"""


def shell(path: Path, script: str) -> str:
    """Write an executable shell script; returns its path."""
    return _executable(path, f"#!/bin/sh\n{script}\n")


def python(path: Path, script: str) -> str:
    """Write an executable Python script; returns its path."""
    return _executable(path, f"#!{sys.executable} -IS\n{script}\n")


def that_prints(path: Path, text: str) -> str:
    """Write a program that always prints a text; returns its path."""
    return shell(path, f"cat <<'END'\n{text}\nEND")


def started(program: str, *arguments: str) -> "subprocess.Popen[bytes]":
    """Start a program in a process group of its own, and wait until it is visible."""
    process = subprocess.Popen([program, *arguments], start_new_session=True)
    while program not in Path(f"/proc/{process.pid}/cmdline").read_text():
        time.sleep(0.01)
    return process


def _executable(path: Path, text: str) -> str:
    path.write_text(text)
    path.chmod(0o755)
    return str(path)
