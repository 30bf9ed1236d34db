"""The base and the change are copied out of real Git repositories, and compared."""

import subprocess
from pathlib import Path

import pytest

from talos_registry_cache.review import checkouts
from talos_registry_cache.review.checkouts import Difference
from talos_registry_cache.review.model import ReviewError


def _git(root: Path, *arguments: str) -> None:
    who = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run(["git", *who, *arguments], cwd=root, check=True, capture_output=True)


def _commit(root: Path, **files: str) -> None:
    for name, text in files.items():
        (root / name).write_text(text)
    _git(root, "add", "--all")
    _git(root, "commit", "--allow-empty", "--message", "x")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository with a change on a branch, and main further on by another one."""
    made = tmp_path / "repository"
    made.mkdir()
    _git(made, "init", "--initial-branch=main")
    (made / ".gitignore").write_text("ignored\n")
    _commit(made, same="1", changed="1", removed="1")
    _git(made, "switch", "--create", "change")
    (made / "removed").unlink()
    _commit(made, changed="2")
    _git(made, "switch", "main")
    _commit(made, elsewhere="1")
    _git(made, "switch", "change")
    return made


def test_working_tree_is_compared_with_where_it_left_the_branch(root: Path) -> None:
    (root / "untracked").touch()
    (root / "ignored").touch()
    (root / "same").write_text("not committed yet")
    assert checkouts.difference(root, "main").files == {"changed", "removed", "untracked", "same"}


def test_commit_is_compared_whatever_is_checked_out(root: Path) -> None:
    _git(root, "switch", "main")
    (root / "untracked").touch()
    (root / "same").write_text("not committed yet")
    assert checkouts.difference(root, "main", "change").files == {"changed", "removed"}


@pytest.mark.parametrize("unknown", ["nowhere", "--help", "main:same", ""])
def test_unknown_commit_is_refused(root: Path, unknown: str) -> None:
    for base, head in ((unknown, None), ("main", unknown)):
        with pytest.raises(ReviewError, match="no commit"):
            checkouts.difference(root, base, head)


def test_branch_without_a_common_commit_is_refused(root: Path) -> None:
    _git(root, "switch", "--orphan", "other")
    _commit(root, same="1")
    with pytest.raises(ReviewError, match="no commit in common"):
        checkouts.difference(root, "main")


def test_attributes_of_a_commit_hide_no_file(root: Path, tmp_path: Path) -> None:
    _commit(root, **{".gitattributes": "same export-ignore\n", "same": "2"})
    checkouts.extract(root, "change", tmp_path / "head")
    assert (tmp_path / "head" / "same").read_text() == "2"


def test_base_and_working_tree_are_copied_without_ignored_files(root: Path, tmp_path: Path) -> None:
    (root / "untracked").write_text("new")
    (root / "ignored").touch()
    changed = checkouts.difference(root, "main")
    base, head = tmp_path / "base", tmp_path / "head"
    checkouts.extract(root, changed.base, base)
    checkouts.copy(root, head)
    assert {file.name for file in base.iterdir()} == {".gitignore", "same", "changed", "removed"}
    assert {file.name for file in head.iterdir()} == {".gitignore", "same", "changed", "untracked"}
    assert [(folder / "changed").read_text() for folder in (base, head)] == ["1", "2"]


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("components/engine.py", ["ci", "dev"]),
        ("__main__.py", ["ci", "dev"]),
        ("Pulumi.yaml", ["ci", "dev"]),
        ("Pulumi.ci.yaml", ["ci"]),
        ("images.txt", ["dev"]),
        ("deploy/app.yaml", ["dev"]),
        ("deploy/below/app.yaml", ["dev"]),
        ("deployments.yaml", []),
        ("README.md", []),
        ("tests/components/x.py", []),
    ],
)
def test_changed_file_affects_the_stacks_that_read_it(file: str, expected: list[str]) -> None:
    changed = Difference("0" * 40, frozenset({file}))
    reads = {"ci": (), "dev": ("images.txt", "deploy")}
    assert [stack for stack, own in reads.items() if changed.affects(stack, *own)] == expected


def test_any_file_affects_a_stack_that_reads_the_whole_checkout() -> None:
    assert Difference("0" * 40, frozenset({"deploy/app.yaml"})).affects("dev", ".")
