"""Fakes for the commands of a machine, so that no test runs real ones."""

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from toolchain.report import SetupError


@dataclass(slots=True)
class Commands:
    """Replaces `report.run`: notes the commands, and returns preset output."""

    answers: Mapping[str, str] = field(default_factory=dict)
    failing: str = ""
    lines: list[str] = field(default_factory=list)

    def __call__(self, command: Sequence[str | Path], **_: Any) -> str:
        line = " ".join(map(str, command))
        self.lines.append(line)
        if self.failing and self.failing in line:
            raise SetupError(f"`{line}` failed with exit code 1:")
        return next((text for part, text in self.answers.items() if part in line), "")


@dataclass(slots=True)
class Processes:
    """Replaces `subprocess.run`: notes the commands, and returns a preset exit code."""

    code: int = 0
    printed: str = ""
    lines: list[str] = field(default_factory=list)
    environments: list[Any] = field(default_factory=list)

    def __call__(
        self, command: Sequence[str | Path], **options: Any
    ) -> subprocess.CompletedProcess[str]:
        self.lines.append(" ".join(map(str, command)))
        self.environments.append(options.get("env"))
        return subprocess.CompletedProcess(command, self.code, stdout=self.printed)


def programs(*present: str) -> Any:
    """Replaces `shutil.which` on a machine that has only these programs."""
    return lambda name: f"/usr/bin/{name}" if name in present else None
