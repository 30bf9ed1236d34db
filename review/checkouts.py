"""The two versions that are compared: the commit that a change starts from, and the working tree.

Git is only read: no worktree is added, no file of the checkout is touched.
"""

import io
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from review.errors import ReviewError

PROGRAM = ("components/", "registry/", "talos/", "__main__.py", "Pulumi.yaml", "requirements.txt")
PACKAGES = "requirements.txt"
GIT_WITHIN_S = 120


@dataclass(frozen=True, slots=True)
class Difference:
    """What a change is made of.

    Attributes:
        base: the commit that it starts from.
        files: the paths that differ from it, in the repository.
    """

    base: str
    files: frozenset[str]

    @property
    def program(self) -> list[str]:
        """The files of the program that differ, which can affect every stack."""
        return sorted(file for file in self.files if file.startswith(PROGRAM))


def difference(root: Path, branch: str) -> Difference:
    """What the working tree changes, compared with where it left a branch.

    Args:
        root: the checkout.
        branch: a branch, tag or commit.

    Raises:
        ReviewError: it is unknown, or has nothing in common with the checkout.
    """
    commit = _git(
        root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{branch}^{{commit}}"
    )
    if commit is None:
        raise ReviewError(
            f"there is no commit {branch!r} in {root}; allowed: a branch, tag or commit"
        )
    base = _git(root, "merge-base", commit.strip(), "HEAD")
    if base is None:
        raise ReviewError(
            f"{branch} and this checkout have no commit in common; "
            "is it a shallow clone? then run git fetch --unshallow"
        )
    start = base.strip()
    changed = _must(root, "diff", "--name-only", "--no-renames", "-z", start)
    return Difference(start, frozenset(_names(changed)) | frozenset(_untracked(root)))


def extract(root: Path, commit: str, folder: Path) -> None:
    """Put the files of a commit into a new folder."""
    line = ["git", "archive", "--format=tar", commit]
    done = subprocess.run(line, cwd=root, capture_output=True, check=False, timeout=GIT_WITHIN_S)
    if done.returncode != 0:
        raise ReviewError(f"`{' '.join(line)}` failed: {done.stderr.decode().strip()}")
    folder.mkdir()
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        # Python has such filters from 3.11.4 on; Git keeps no path that leads out of the folder.
        archive.extraction_filter = getattr(tarfile, "data_filter", None)
        archive.extractall(folder)  # noqa: S202


def copy(root: Path, folder: Path) -> None:
    """Put the working tree as it is into a new folder, without what git ignores."""
    listed = _names(_must(root, "ls-files", "--cached", "--exclude-standard", "-z"))
    folder.mkdir()
    for name in (*listed, *_untracked(root)):
        source, target = root / name, folder / name
        if source.is_file() or source.is_symlink():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target, follow_symlinks=False)


def stack_files(folder: Path) -> Mapping[str, str]:
    """The text of each stack file in a version, by the stack's name."""
    return {
        file.name.removeprefix("Pulumi.").removesuffix(".yaml"): file.read_text(encoding="utf-8")
        for file in sorted(folder.glob("Pulumi.*.yaml"))
    }


def affected(
    changed: Difference, stacks: Iterable[str], also_reads: Callable[[str], Iterable[str]]
) -> list[str]:
    """The stacks that a change can affect.

    Args:
        changed: the change.
        stacks: the stacks of either version.
        also_reads: the files that a stack reads beside its stack file.
    """
    return [
        stack
        for stack in sorted(set(stacks))
        if changed.program or changed.files & {f"Pulumi.{stack}.yaml", *also_reads(stack)}
    ]


def _untracked(root: Path) -> list[str]:
    return _names(_must(root, "ls-files", "--others", "--exclude-standard", "-z"))


def _names(printed: str) -> list[str]:
    return [name for name in printed.split("\0") if name]


def _must(root: Path, *arguments: str) -> str:
    printed = _git(root, *arguments)
    if printed is None:
        raise ReviewError(f"`git {' '.join(arguments)}` failed in {root}; is it a git checkout?")
    return printed


def _git(root: Path, *arguments: str) -> str | None:
    """What git prints, or None where it fails."""
    done = subprocess.run(
        ["git", *arguments],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
        timeout=GIT_WITHIN_S,
    )
    return done.stdout if done.returncode == 0 else None
