"""The two versions that are compared: the commit that a change starts from, and the change.

The change is the working tree, or a commit. Git is only read: no worktree is added, no file of the
checkout is touched.
"""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from talos_registry_cache.review.errors import ReviewError

PROGRAM = ("components/", "talos_registry_cache/", "__main__.py", "Pulumi.yaml", "requirements.txt")
PACKAGES = "requirements.txt"
GIT_WITHIN_S = 120


@dataclass(frozen=True, slots=True)
class Difference:
    """What a change is made of.

    Attributes:
        base: the commit that it starts from.
        files: the paths that differ from it, in the repository.
        head: the commit that it is, or None for the working tree.
    """

    base: str
    files: frozenset[str]
    head: str | None = None

    @property
    def program(self) -> list[str]:
        """The files of the program that differ, which can affect every stack."""
        return sorted(file for file in self.files if file.startswith(PROGRAM))


def difference(root: Path, branch: str, head: str | None = None) -> Difference:
    """What a change is, compared with where it left a branch.

    Args:
        root: the checkout.
        branch: a branch, tag or commit.
        head: the change, a branch, tag or commit as well; None for the working tree.

    Raises:
        ReviewError: one is unknown, or they have nothing in common.
    """
    commit = _commit(root, branch)
    changed = "HEAD" if head is None else _commit(root, head)
    base = _git(root, "merge-base", commit, changed)
    if base is None:
        raise ReviewError(
            f"{branch} and {head or 'this checkout'} have no commit in common; "
            "is it a shallow clone? then run git fetch --unshallow"
        )
    start = base.strip()
    diff = ("diff", "--name-only", "--no-renames", "-z", start)
    if head is not None:
        return Difference(start, frozenset(_names(_must(root, *diff, changed))), changed)
    return Difference(start, frozenset(_names(_must(root, *diff))) | frozenset(_untracked(root)))


def extract(root: Path, commit: str, folder: Path) -> None:
    """Put the files of a commit into a new folder.

    All of them: `git archive` would leave out what the commit's own attributes say.
    """
    folder.mkdir()
    index = folder.with_name(f"{folder.name}.index")
    _must(root, "read-tree", commit, index=index)
    _must(root, "checkout-index", "--all", f"--prefix={folder}/", index=index)


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


def _commit(root: Path, name: str) -> str:
    """The commit that a branch, tag or commit names.

    Raises:
        ReviewError: there is none.
    """
    found = _git(root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
    if found is None:
        raise ReviewError(
            f"there is no commit {name!r} in {root}; allowed: a branch, tag or commit"
        )
    return found.strip()


def _untracked(root: Path) -> list[str]:
    return _names(_must(root, "ls-files", "--others", "--exclude-standard", "-z"))


def _names(printed: str) -> list[str]:
    return [name for name in printed.split("\0") if name]


def _must(root: Path, *arguments: str, index: Path | None = None) -> str:
    printed = _git(root, *arguments, index=index)
    if printed is None:
        raise ReviewError(f"`git {' '.join(arguments)}` failed in {root}; is it a git checkout?")
    return printed


def _git(root: Path, *arguments: str, index: Path | None = None) -> str | None:
    """What git prints, or None where it fails; with an index of its own, where one is given."""
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
