"""cachectl as a process."""

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
    """The result of a command.

    Attributes:
        code: its exit code.
        out, err: standard output and standard error.
    """

    code: int
    out: str
    err: str

    @property
    def result(self) -> Any:
        """The output of `--json`."""
        return json.loads(self.out)


class Cachectl:
    """cachectl for one stack.

    Attributes:
        env: its environment.
        user: arguments of `subprocess.Popen` that run it as another user.
    """

    def __init__(
        self, stack: str, folder: Path, enter: Sequence[str] = (), *, engine_host: str | None = None
    ) -> None:
        """Prepare to run cachectl.

        Args:
            stack: name of the stack.
            folder: working directory, and cache directory.
            enter: command prefix that enters the network namespace of its engine.
            engine_host: address of its engine, if it differs from that of the tests.
        """
        self.env = {
            **os.environ,
            **({"DOCKER_HOST": engine_host} if engine_host else {}),
            "CACHECTL_STACK": stack,
            "PYTHONPATH": str(ROOT),
            "XDG_CACHE_HOME": str(folder),
        }
        self.user: dict[str, Any] = {}
        self._folder = folder
        self._program = [*enter, sys.executable, "-m", "talos_registry_cache.cli"]

    def __call__(self, *arguments: str | Path) -> Ended:
        """Run a command and wait for it."""
        done = processes.finish(
            [*self._program, *arguments],
            within_s=WITHIN_S,
            env=self.env,
            cwd=self._folder,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return Ended(done.returncode, done.stdout, done.stderr)

    def start(self, *arguments: str | Path) -> "subprocess.Popen[str]":
        """Start a command without waiting for it."""
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
