"""A Git repository with the program and the test's own stack files, and previews of changes."""

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
    """The result of a preview.

    Attributes:
        code: its exit code.
        text: the report.
        said: its standard error.
    """

    code: int
    text: str
    said: str

    @property
    def prefix(self) -> str:
        """The prefix of its stacks on the engine."""
        found = re.search(r"pr-[0-9a-f]+-", self.said)
        assert found is not None, self.said
        return found[0]

    def of(self, stack: str) -> str:
        """The section of the report about a stack."""
        found = re.search(
            rf"^### `{stack}`.*?(?=^###? |^<sub>)", self.text, re.DOTALL | re.MULTILINE
        )
        assert found is not None, f"{self.text}\n{self.said}"
        return found[0]


class Repository:
    """A repository with the program on the branch `main`, and a change on the branch `change`."""

    def __init__(self, root: Path) -> None:
        """Create it, without stack files."""
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
        """Append text to a file, which is created if necessary."""
        path = self.root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as opened:
            opened.write(text)

    def commit(self) -> None:
        """Commit all files."""
        self._git("add", "--all")
        self._git("commit", "--quiet", "--message=x")

    def branch(self) -> None:
        """Create the branch of the change."""
        self._git("switch", "--quiet", "--create=change")

    def commit_id(self, branch: str) -> str:
        """The ID of a branch's last commit."""
        return processes.run("git", "rev-parse", branch, cwd=self.root).strip()

    @property
    def previews(self) -> Path:
        """The folder with the files of running previews."""
        return self.root / ".state" / "previews"

    def preview(self, *arguments: str, more_env: Mapping[str, str] | None = None) -> Report:
        """Preview the change."""
        return _preview(self.root, _line("main", *arguments), more_env)

    def preview_in_clone(self, folder: Path, *arguments: str) -> Report:
        """Preview the change in a new clone, as a runner does."""
        processes.run("git", "clone", "--quiet", self.root, folder)
        return _preview(folder, _line("origin/main", *arguments))

    @contextmanager
    def running_preview(self, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
        """Start a preview of the change."""
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
