"""cachectl as people run it: a process, and what it prints."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.integration.support import processes

ROOT = Path(__file__).resolve().parents[3]
WITHIN_S = 120


@dataclass(frozen=True, slots=True)
class Ended:
    """A command that has ended.

    Attributes:
        code: its exit code.
        out, err: what it printed as its result, and beside it.
    """

    code: int
    out: str
    err: str

    @property
    def result(self) -> Any:
        """What it printed by --json."""
        return json.loads(self.out)


class Cachectl:
    """cachectl for one stack.

    Attributes:
        env: its environment.
        user: who starts it where that is not this process's user, as `subprocess.Popen` takes it.
    """

    def __init__(self, stack: str, folder: Path, enter: Sequence[str] = ()) -> None:
        """Prepare to run it.

        Args:
            stack: the stack.
            folder: where it runs, and keeps what it keeps.
            enter: what a command line begins with that runs where its engine does.
        """
        self.env = {
            **os.environ,
            "CACHECTL_STACK": stack,
            "PYTHONPATH": str(ROOT),
            "XDG_CACHE_HOME": str(folder),
        }
        self.user: dict[str, Any] = {}
        self._folder = folder
        self._program = [*enter, sys.executable, "-m", "talos_registry_cache.cli"]

    def __call__(self, *arguments: str | Path) -> Ended:
        """Run a command to its end."""
        done = processes.finish(
            [*self._program, *arguments],
            within_s=WITHIN_S,
            env=self.env,
            cwd=self._folder,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return Ended(done.returncode, done.stdout, done.stderr)

    def start(self, *arguments: str | Path) -> "subprocess.Popen[str]":
        """Run a command and do not wait for its end."""
        return subprocess.Popen(
            [*self._program, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.env,
            cwd=self._folder,
            **self.user,
        )
