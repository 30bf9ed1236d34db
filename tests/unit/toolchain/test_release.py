"""What stands against a release, found in real Git repositories with real Makefiles."""

import subprocess
from pathlib import Path

import pytest

from toolchain import release
from toolchain.paths import ROOT
from toolchain.report import SetupError

CHANGELOG = """\
# Changelog

## [Unreleased]

## [1.2.0] - 2026-11-24

### Added

- All of it.

## [1.1.0] - 2026-10-01

- The beginning.
"""
# Its page is made from its model, its lock from what is wanted, and it is broken if it says so.
MAKEFILE = """\
.PHONY: docs lock check
docs:
\t@cp model page
lock:
\t@cp wanted lock
check:
\t@test ! -e broken || { echo "broken is there"; false; }
"""
FILES = {
    "pyproject.toml": '[project]\nname = "x"\nversion = "1.2.0"\n',
    "CHANGELOG.md": CHANGELOG,
    "Makefile": MAKEFILE,
    "model": "1",
    "page": "1",
    "wanted": "1",
    "lock": "1",
}


class Checkout:
    """A repository of which a release can be made."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.git("init", "--quiet")
        self.commit(**FILES)

    def git(self, *arguments: str) -> None:
        who = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        subprocess.run(["git", *who, *arguments], cwd=self.root, check=True, capture_output=True)

    def write(self, name: str, text: str) -> None:
        (self.root / name).write_text(text)

    def commit(self, **files: str) -> None:
        for name, text in files.items():
            self.write(name, text)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message=x")

    def findings(self) -> list[str]:
        return list(release.findings(self.root))


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_nothing_stands_against_a_release_that_is_prepared(checkout: Checkout) -> None:
    checkout.git("tag", "v1.1.0")

    assert checkout.findings() == []


def test_what_is_not_committed_is_named(checkout: Checkout) -> None:
    checkout.write("wanted", "1\n# a comment\n")
    checkout.commit(lock="1\n# a comment\n")
    checkout.write("a new file", "")
    checkout.git("rm", "--quiet", "--cached", "page")

    assert checkout.findings() == ["not committed: a new file, page"]


def test_a_version_that_is_tagged_already_is_refused(checkout: Checkout) -> None:
    checkout.git("tag", "v1.2.0")

    (line,) = checkout.findings()

    assert line.startswith("pyproject.toml: found version 1.2.0, which has a tag already;")


@pytest.mark.parametrize("found", ["1.2", "1.2.0.dev1", "v1.2.0", ""])
def test_a_version_is_three_numbers(checkout: Checkout, found: str) -> None:
    checkout.commit(**{"pyproject.toml": f'[project]\nversion = "{found}"\n'})

    assert checkout.findings()[0] == (
        f"pyproject.toml: found version {found!r}; allowed: three numbers, such as 1.2.3"
    )


@pytest.mark.parametrize(
    ("before", "after", "finding"),
    [
        (
            "## [1.2.0] - 2026-11-24",
            "## [1.3.0] - 2026-11-24",
            "found no section of 1.2.0; allowed: `## [1.2.0] - YYYY-MM-DD`",
        ),
        (
            "- 2026-11-24",
            "",
            "found `## [1.2.0] `; allowed: `## [1.2.0] - YYYY-MM-DD`",
        ),
        (
            "2026-11-24",
            "2026-13-24",
            "found `## [1.2.0] - 2026-13-24`; allowed: `## [1.2.0] - YYYY-MM-DD`",
        ),
        (
            "- All of it.",
            "",
            "the section of 1.2.0 is empty; allowed: what users notice",
        ),
        (
            "## [Unreleased]",
            "## [Unreleased]\n\n- Forgotten.",
            "[Unreleased] has entries; allowed: none, since they are in 1.2.0",
        ),
    ],
)
def test_the_changelog_tells_of_the_version(
    checkout: Checkout, before: str, after: str, finding: str
) -> None:
    checkout.commit(**{"CHANGELOG.md": CHANGELOG.replace(before, after)})

    assert checkout.findings() == [f"CHANGELOG.md: {finding}"]


def test_a_changelog_is_there(checkout: Checkout) -> None:
    checkout.git("rm", "--quiet", "CHANGELOG.md")
    checkout.commit()

    (line,) = checkout.findings()

    assert line.startswith("CHANGELOG.md: found no section of 1.2.0;")


@pytest.mark.parametrize(
    ("source", "target", "made"), [("model", "docs", "page"), ("wanted", "lock", "lock")]
)
def test_a_file_that_is_made_is_renewed_and_named(
    checkout: Checkout, source: str, target: str, made: str
) -> None:
    checkout.commit(**{source: "2"})

    assert checkout.findings() == [
        f"`make {target}` has renewed {made}; allowed: what is committed"
    ]
    assert (checkout.root / made).read_text() == "2"


def test_all_findings_are_told_and_a_check_that_fails_with_what_it_printed(
    checkout: Checkout,
) -> None:
    checkout.git("tag", "v1.2.0")
    checkout.commit(model="2")
    checkout.write("broken", "")

    tagged, uncommitted, renewed, failed = checkout.findings()

    assert "has a tag already" in tagged
    assert uncommitted == "not committed: broken"
    assert "has renewed page" in renewed
    assert failed.startswith("`make check` ended with 2:\n")
    assert "broken is there" in failed


def test_outside_of_git_there_is_nothing_to_release(tmp_path: Path) -> None:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)

    with pytest.raises(SetupError, match="not a git repository"):
        list(release.findings(tmp_path))


# This project


def test_the_changelog_begins_with_what_is_to_come_or_with_the_version() -> None:
    first, *_ = (name for name, _ in release._sections((ROOT / "CHANGELOG.md").read_text()))

    assert first in {"Unreleased", release.version(ROOT)}


@pytest.mark.parametrize("target", release.TARGETS)
def test_the_makefile_has_what_the_check_runs(target: str) -> None:
    assert f"\n{target}: ##" in (ROOT / "Makefile").read_text()
