"""Stands for the commands and the engine of a machine, so that no test touches the real ones."""

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from toolchain.report import SetupError


@dataclass(slots=True)
class Commands:
    """Takes the place of `report.run`: notes the commands, and answers as it was told."""

    answers: Mapping[str, str] = field(default_factory=dict)
    failing: str = ""
    lines: list[str] = field(default_factory=list)

    def __call__(self, command: Sequence[str | Path], **_: Any) -> str:
        line = " ".join(map(str, command))
        self.lines.append(line)
        if self.failing and self.failing in line:
            raise SetupError(f"`{line}` ended with 1:")
        return next((text for part, text in self.answers.items() if part in line), "")


@dataclass(slots=True)
class Processes:
    """Takes the place of `subprocess.run` where a command's exit code is passed on."""

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
    """Takes the place of `shutil.which`: a machine with these programs and no other."""
    return lambda name: f"/usr/bin/{name}" if name in present else None
