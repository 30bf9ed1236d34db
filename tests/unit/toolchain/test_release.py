"""Obstacles to a release are found in real Git repositories with real Makefiles."""

import subprocess
from pathlib import Path

import pytest

from toolchain import release

CHANGELOG = """\
# Changelog

## [Unreleased]

## [1.2.0] - 2026-11-24

### Added

- All of it.

## [1.1.0] - 2026-10-01

- The beginning.
"""
# `docs` and `lock` update a file from another; `check` fails if there is a file `broken`.
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
    """A repository that can be released."""

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


def test_prepared_release_has_no_obstacles_but_uncommitted_files(checkout: Checkout) -> None:
    checkout.git("tag", "v1.1.0")
    assert checkout.findings() == []

    checkout.write("a new file", "")
    checkout.git("rm", "--quiet", "--cached", "page")
    assert checkout.findings() == ["not committed: a new file, page"]


@pytest.mark.parametrize("found", ["1.2", "1.2.0.dev1", "v1.2.0", ""])
def test_version_is_three_numbers(checkout: Checkout, found: str) -> None:
    checkout.commit(**{"pyproject.toml": f'[project]\nversion = "{found}"\n'})

    assert checkout.findings()[0].startswith(f"pyproject.toml: found version {found!r}; allowed:")


@pytest.mark.parametrize(
    ("before", "after", "finding"),
    [
        ("## [1.2.0] ", "## [1.3.0] ", "found no section for 1.2.0; allowed: `## [1.2.0] - YYYY"),
        ("- 2026-11-24", "", "found `## [1.2.0] `; allowed"),
        ("2026-11-24", "2026-13-24", "found `## [1.2.0] - 2026-13-24`; allowed"),
        ("- All of it.", "", "the section for 1.2.0 is empty"),
        ("## [Unreleased]", "## [Unreleased]\n\n- Forgotten.", "[Unreleased] has entries"),
    ],
)
def test_changelog_has_a_dated_section_for_the_version(
    checkout: Checkout, before: str, after: str, finding: str
) -> None:
    checkout.commit(**{"CHANGELOG.md": CHANGELOG.replace(before, after)})

    (found,) = checkout.findings()

    assert found.startswith(f"CHANGELOG.md: {finding}")


@pytest.mark.parametrize(
    ("source", "target", "made"), [("model", "docs", "page"), ("wanted", "lock", "lock")]
)
def test_outdated_file_is_updated_and_named(
    checkout: Checkout, source: str, target: str, made: str
) -> None:
    checkout.commit(**{source: "2"})

    assert checkout.findings() == [f"`make {target}` has updated {made}; commit them"]
    assert (checkout.root / made).read_text() == "2"


def test_all_obstacles_are_reported_together(checkout: Checkout) -> None:
    checkout.git("tag", "v1.2.0")
    checkout.commit(model="2")
    checkout.write("broken", "")

    tagged, uncommitted, renewed, failed = checkout.findings()

    assert "is already tagged" in tagged
    assert uncommitted == "not committed: broken"
    assert "has updated page" in renewed
    assert failed.startswith("`make check` failed with exit code 2:\n")
    assert "broken is there" in failed
