"""Previews a change: copies both versions out of Git, and has them compared in isolation."""

import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from talos_registry_cache.review import checkouts, environment, isolation
from talos_registry_cache.review.checkouts import Difference
from talos_registry_cache.review.model import Preview

WARNING = (
    "==> this runs the program of the change as you, with access to your files and engine\n"
    "    if you do not trust its author, use a disposable machine: see docs/pull-requests.md"
)


@dataclass(frozen=True, slots=True)
class Job:
    """What `comparison` is to compare.

    Attributes:
        prefix: the prefix of all names on the engine.
        branch: the base branch, as the user named it.
        change: the change.
        stacks: the stacks to compare; all affected ones if empty.
    """

    prefix: str
    branch: str
    change: Difference
    stacks: Sequence[str]


JOB = TypeAdapter(Job)
PREVIEW = TypeAdapter(Preview)


def make(
    root: Path,
    branch: str,
    stacks: Sequence[str],
    say: Callable[[str], None],
    *,
    head: str | None = None,
) -> Preview:
    """Preview a change against stacks that run the base branch, and clean up, also on a signal.

    Args:
        root: the checkout.
        branch: the base: a branch, tag or commit.
        stacks: the stacks to compare; all affected ones if empty.
        say: reports progress to the user.
        head: the change: a branch, tag or commit, or None for the working tree.

    Raises:
        ReviewError: a commit is unknown.
        SystemExit: the comparison or its clean-up failed, and has said why.
    """
    change = checkouts.difference(root, branch, head)
    prefix = isolation.new_prefix()
    say(WARNING)
    say(f"==> everything it creates on the engine is named {prefix}…, and removed at the end")
    folder = root / ".state" / "previews" / prefix.removesuffix("-")
    folder.mkdir(parents=True, mode=0o700)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _exit)
    with (
        tempfile.TemporaryFile() as printed,
        subprocess.Popen(
            [sys.executable, "-m", "talos_registry_cache.review.janitor", prefix, str(folder)],
            cwd=root,
            env=environment.create(folder),
            stdin=subprocess.PIPE,
            stdout=printed,
            text=True,
            start_new_session=True,
        ) as janitor,
    ):
        checkouts.extract(root, change.base, folder / "base")
        if change.head is None:
            checkouts.copy(root, folder / "head")
        else:
            checkouts.extract(root, change.head, folder / "head")
        (folder / "job.json").write_bytes(JOB.dump_json(Job(prefix, branch, change, stacks)))
        print("start", file=janitor.stdin, flush=True)
        if janitor.wait() != 0:
            sys.exit(1)
        printed.seek(0)
        return PREVIEW.validate_json(printed.read())


def _exit(number: int, _: object) -> None:
    """End the preview on a signal, which closes the janitor's standard input."""
    sys.exit(128 + number)
