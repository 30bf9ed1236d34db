"""The two versions that a preview compares, copied out of Git: the base and the change.

The change is the working tree or a commit. Git is only read: no worktree is registered, and no file
of the checkout is touched.
"""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from talos_registry_cache.review.model import ReviewError

PROGRAM = ("components/", "talos_registry_cache/", "__main__.py", "Pulumi.yaml", "requirements.txt")
PACKAGES = "requirements.txt"
GIT_WITHIN_S = 120


@dataclass(frozen=True, slots=True)
class Difference:
    """The difference between the base and the change.

    Attributes:
        base: the commit where the change left the base branch.
        files: the paths that differ, relative to the repository.
        head: the commit of the change, or None for the working tree.
    """

    base: str
    files: frozenset[str]
    head: str | None = None

    def affects(self, stack: str, *also_reads: str) -> bool:
        """Whether the change can affect a stack.

        Args:
            stack: the stack's name.
            also_reads: files that it reads beside its stack file, and folders with such files.
        """
        reads = {f"Pulumi.{stack}.yaml", *also_reads}
        return any(
            file.startswith(PROGRAM) or not reads.isdisjoint(_with_folders(file))
            for file in self.files
        )


def difference(root: Path, branch: str, head: str | None = None) -> Difference:
    """Compare a change with the commit where it left a branch.

    Args:
        root: the checkout.
        branch: the base: a branch, tag or commit.
        head: the change: a branch, tag or commit, or None for the working tree.

    Raises:
        ReviewError: one of them is unknown, or they have no common commit.
    """
    base_tip = _commit(root, branch)
    changed = "HEAD" if head is None else _commit(root, head)
    base = _git(root, "merge-base", base_tip, changed)
    if base is None:
        raise ReviewError(
            f"{branch} and {head or 'this checkout'} have no commit in common; "
            "if this is a shallow clone, run git fetch --unshallow"
        )
    start = base.strip()
    diff = ("diff", "--name-only", "--no-renames", "-z", start)
    if head is not None:
        return Difference(start, frozenset(_names(root, *diff, changed)), changed)
    return Difference(start, frozenset({*_names(root, *diff), *_untracked(root)}))


def extract(root: Path, commit: str, folder: Path) -> None:
    """Extract all files of a commit into a new folder.

    Unlike `git archive`, it leaves out none that the commit's own attributes exclude.
    """
    folder.mkdir()
    index = folder.with_name(f"{folder.name}.index")
    _must(root, "read-tree", commit, index=index)
    _must(root, "checkout-index", "--all", f"--prefix={folder}/", index=index)


def copy(root: Path, folder: Path) -> None:
    """Copy the working tree into a new folder, without ignored files."""
    folder.mkdir()
    for name in (*_names(root, "ls-files", "--cached", "-z"), *_untracked(root)):
        source, target = root / name, folder / name
        if source.is_file() or source.is_symlink():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target, follow_symlinks=False)


def _with_folders(file: str) -> list[str]:
    return [file, *map(str, PurePosixPath(file).parents)]


def _commit(root: Path, name: str) -> str:
    found = _git(root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
    if found is None:
        raise ReviewError(f"no commit {name!r} in {root}; allowed: a branch, tag or commit")
    return found.strip()


def _untracked(root: Path) -> list[str]:
    return _names(root, "ls-files", "--others", "--exclude-standard", "-z")


def _names(root: Path, *arguments: str) -> list[str]:
    """Return the names that a Git command lists with -z."""
    return [name for name in _must(root, *arguments).split("\0") if name]


def _must(root: Path, *arguments: str, index: Path | None = None) -> str:
    printed = _git(root, *arguments, index=index)
    if printed is None:
        raise ReviewError(f"`git {' '.join(arguments)}` failed in {root}; is it a Git checkout?")
    return printed


def _git(root: Path, *arguments: str, index: Path | None = None) -> str | None:
    """Return the output of a Git command, or None if it fails.

    Args:
        root: the checkout.
        arguments: the command.
        index: an index file to use in place of the checkout's.
    """
    done = subprocess.run(
        ["git", *arguments],
        cwd=root,
        env={**os.environ, "GIT_INDEX_FILE": str(index)} if index else None,
        capture_output=True,
        text=True,
        check=False,
        timeout=GIT_WITHIN_S,
    )
    return done.stdout if done.returncode == 0 else None
