"""What a change is made of, found in real Git repositories."""

import subprocess
from pathlib import Path

import pytest

from talos_registry_cache.review import checkouts
from talos_registry_cache.review.checkouts import Difference
from talos_registry_cache.review.errors import ReviewError


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


def test_change_is_what_differs_from_where_it_left_the_branch(root: Path) -> None:
    (root / "untracked").touch()
    (root / "ignored").touch()
    (root / "same").write_text("not committed yet")
    assert checkouts.difference(root, "main").files == {"changed", "removed", "untracked", "same"}


def test_change_of_a_commit_is_what_it_has_whatever_is_checked_out(root: Path) -> None:
    _git(root, "switch", "main")
    (root / "untracked").touch()
    (root / "same").write_text("not committed yet")
    assert checkouts.difference(root, "main", "change").files == {"changed", "removed"}


@pytest.mark.parametrize("head", ["nowhere", "--help", "change:changed", ""])
def test_unknown_head_is_refused(root: Path, head: str) -> None:
    with pytest.raises(ReviewError, match="there is no commit"):
        checkouts.difference(root, "main", head)


def test_a_commit_hides_no_file_by_its_attributes(root: Path, tmp_path: Path) -> None:
    _commit(root, **{".gitattributes": "same export-ignore\n", "same": "2"})
    checkouts.extract(root, "change", tmp_path / "head")
    assert (tmp_path / "head" / "same").read_text() == "2"


@pytest.mark.parametrize("branch", ["nowhere", "--help", "main:same", ""])
def test_unknown_branch_is_refused(root: Path, branch: str) -> None:
    with pytest.raises(ReviewError, match="there is no commit"):
        checkouts.difference(root, branch)


def test_branch_without_a_common_commit_is_refused(root: Path) -> None:
    _git(root, "switch", "--orphan", "other")
    _commit(root, same="1")
    with pytest.raises(ReviewError, match="no commit in common"):
        checkouts.difference(root, "main")


def test_base_and_head_are_brought_into_folders_of_their_own(root: Path, tmp_path: Path) -> None:
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
        ("README.md", []),
        ("tests/components/x.py", []),
    ],
)
def test_stacks_that_a_changed_file_can_affect(file: str, expected: list[str]) -> None:
    changed = Difference("0" * 40, frozenset({file}))
    reads = {"dev": ["images.txt"], "ci": []}
    assert checkouts.affected(changed, ["dev", "ci"], lambda stack: reads[stack]) == expected


def test_stack_files_are_found_by_name_and_the_project_file_is_none(tmp_path: Path) -> None:
    for name in ("Pulumi.yaml", "Pulumi.dev.yaml", "Pulumi.a.b.yaml"):
        (tmp_path / name).write_text(name)
    assert dict(checkouts.stack_files(tmp_path)) == {
        "a.b": "Pulumi.a.b.yaml",
        "dev": "Pulumi.dev.yaml",
    }
