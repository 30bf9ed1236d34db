"""A Git repository with the program and a test's own stack files, and previews of its changes."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.integration.support import processes
from tests.integration.support.stack import PROJECT, ROOT

PROGRAM = (
    ".gitignore",
    "Pulumi.yaml",
    "__main__.py",
    "components",
    "requirements.txt",
    "talos_registry_cache",
)
PREVIEW_WITHIN_S = 220

Settings = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Report:
    """What a preview has made.

    Attributes:
        code: its exit code.
        text: the report.
        said: what it said beside that.
    """

    code: int
    text: str
    said: str

    @property
    def prefix(self) -> str:
        """What the names of its stacks on the engine began with."""
        found = re.search(r"pr-[0-9a-f]+-", self.said)
        assert found is not None, self.said
        return found[0]

    def of(self, stack: str) -> str:
        """The part of the report that is about a stack."""
        found = re.search(
            rf"^### `{stack}`.*?(?=^###? |^<sub>)", self.text, re.DOTALL | re.MULTILINE
        )
        assert found is not None, f"{self.text}\n{self.said}"
        return found[0]


class Repository:
    """A repository whose branch `main` has the program, with a change on another branch."""

    def __init__(self, root: Path) -> None:
        """Make it, without stack files."""
        self.root = root
        root.mkdir()
        for name in PROGRAM:
            source = ROOT / name
            if source.is_dir():
                ignored = shutil.ignore_patterns("__pycache__")
                shutil.copytree(source, root / name, ignore=ignored)
            else:
                shutil.copy(source, root / name)
        self._git("init", "--quiet", "--initial-branch=main")

    def write(self, stack: str, settings: Settings, comment: str = "") -> None:
        """Write a stack file."""
        config = {f"{PROJECT}:{key}": value for key, value in settings.items()}
        text = yaml.safe_dump({"config": config}, sort_keys=False)
        (self.root / f"Pulumi.{stack}.yaml").write_text(f"# {comment}\n{text}")

    def append(self, file: str, text: str) -> None:
        """Add lines to the end of a file, which is made where there is none."""
        path = self.root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as opened:
            opened.write(text)

    def commit(self) -> None:
        """Commit all that is there."""
        self._git("add", "--all")
        self._git("commit", "--quiet", "--message=x")

    def branch(self) -> None:
        """Begin the change."""
        self._git("switch", "--quiet", "--create=change")

    def commit_id(self, branch: str) -> str:
        """The commit that a branch has come to."""
        return processes.run("git", "rev-parse", branch, cwd=self.root).strip()

    @property
    def previews(self) -> Path:
        """Where a preview keeps its files while it runs."""
        return self.root / ".state" / "previews"

    def preview(self, *arguments: str, more_env: Mapping[str, str] | None = None) -> Report:
        """Preview the change, to the end."""
        return _preview(self.root, _line("main", *arguments), more_env)

    def preview_in_clone(self, folder: Path, *arguments: str) -> Report:
        """Clone it into a new folder, as a runner does, and preview the change there."""
        processes.run("git", "clone", "--quiet", self.root, folder)
        return _preview(folder, _line("origin/main", *arguments))

    @contextmanager
    def running_preview(self, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
        """Begin a preview of the change."""
        with subprocess.Popen(
            _line("main", *arguments),
            cwd=self.root,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            try:
                yield process
            finally:
                process.terminate()

    def _git(self, *arguments: str) -> None:
        who = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
        processes.run("git", *who, *arguments, cwd=self.root)


def _line(base: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "talos_registry_cache.review", "--base", base, *arguments]


def _preview(root: Path, line: list[str], more_env: Mapping[str, str] | None = None) -> Report:
    env = {**os.environ, **(more_env or {})}
    done = processes.finish(line, within_s=PREVIEW_WITHIN_S, cwd=root, env=env)
    return Report(done.returncode, done.stdout, done.stderr)
