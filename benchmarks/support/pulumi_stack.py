"""Pulumi stacks with their own state."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.support.commands import run

ROOT = Path(__file__).resolve().parents[2]
PROJECT = "talos-registry-cache"

Config = Mapping[str, Any]
"""The values of the program's configuration keys."""


@dataclass(frozen=True, slots=True)
class Stack:
    """A stack.

    Attributes:
        name: its name.
        folder: folder of its project file, stack file and state; `prepare` creates it.
    """

    name: str
    folder: Path

    def prepare(self, config: Config, program: Path = ROOT) -> None:
        """Create it: write the project and settings, and initialise the stack."""
        (self.folder / "state").mkdir(parents=True)
        project = {"name": PROJECT, "runtime": "python", "main": str(program)}
        (self.folder / "Pulumi.yaml").write_text(json.dumps(project))
        self.configure(config)
        self.pulumi("stack", "init", self.name)

    def configure(self, config: Config) -> None:
        """Write its settings."""
        keys = {f"{PROJECT}:{key}": value for key, value in config.items()}
        file = self.folder / f"Pulumi.{self.name}.yaml"
        file.write_text(json.dumps({"config": keys}))

    def pulumi(self, *arguments: str) -> str:
        """Run a Pulumi command on it, and return the output."""
        return run("pulumi", "--non-interactive", *arguments, cwd=self.folder, env=self.env())

    def env(self) -> dict[str, str]:
        """The environment of Pulumi commands on it."""
        env = os.environ | {
            "PULUMI_BACKEND_URL": (self.folder / "state").as_uri(),
            "PULUMI_CONFIG_PASSPHRASE": "benchmark",
        }
        env.pop("PULUMI_CONFIG_PASSPHRASE_FILE", None)
        return env

    def up(self) -> None:
        """Run `pulumi up`."""
        self.pulumi("up", "--yes", "--skip-preview", "--stack", self.name)

    def down(self) -> None:
        """Run `pulumi destroy`."""
        self.pulumi("destroy", "--yes", "--skip-preview", "--stack", self.name)

    def outputs(self) -> Mapping[str, Any]:
        """Its outputs."""
        shown = self.pulumi("stack", "output", "--json", "--stack", self.name)
        outputs: dict[str, Any] = json.loads(shown)
        return outputs
