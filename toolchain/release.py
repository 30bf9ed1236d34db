"""Checks that a checkout can be released: `make release-check`."""

import re
import tomllib
from collections.abc import Iterator
from datetime import date
from pathlib import Path

from toolchain.report import SetupError, run, step

CHANGELOG = "CHANGELOG.md"
UNRELEASED = "Unreleased"

# The first two update committed files, which the last one checks.
TARGETS = ("docs", "lock", "check")


def version(root: Path) -> str:
    """Return the version of a checkout, from pyproject.toml."""
    return str(tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"])


def findings(root: Path) -> Iterator[str]:
    """Yield every obstacle to a release of a checkout, each of one line or more.

    Files that `make docs` and `make lock` update are left to be committed.

    Raises:
        SetupError: the checkout is not a Git repository.
    """
    wanted = version(root)
    yield from _in_version(root, wanted)
    yield from _in_changelog(root, wanted)
    if names := sorted(_not_committed(root)):
        yield f"not committed: {', '.join(names)}"
    for target in TARGETS:
        yield from _by_make(root, target)


def tag(wanted: str) -> str:
    """Return the Git tag of a version."""
    return f"v{wanted}"


def _in_version(root: Path, wanted: str) -> Iterator[str]:
    if not re.fullmatch(r"\d+\.\d+\.\d+", wanted):
        yield f"pyproject.toml: found version {wanted!r}; allowed: three numbers, such as 1.2.3"
    elif run(["git", "tag", "--list", tag(wanted)], cwd=root):
        yield f"pyproject.toml: found version {wanted}, which is already tagged; allowed: a new one"


def _in_changelog(root: Path, wanted: str) -> Iterator[str]:
    file = root / CHANGELOG
    sections = dict(_sections(file.read_text() if file.exists() else ""))
    allowed = f"`## [{wanted}] - YYYY-MM-DD`"
    if wanted not in sections:
        yield f"{CHANGELOG}: found no section for {wanted}; allowed: {allowed}"
    else:
        behind, text = sections[wanted]
        if not _is_dated(behind):
            yield f"{CHANGELOG}: found `## [{wanted}]{behind}`; allowed: {allowed}"
        if not _has_entries(text):
            yield f"{CHANGELOG}: the section for {wanted} is empty; allowed: what users notice"
    if _has_entries(sections.get(UNRELEASED, ("", ""))[1]):
        yield f"{CHANGELOG}: [{UNRELEASED}] has entries; allowed: none, move them to {wanted}"


def _sections(changelog: str) -> Iterator[tuple[str, tuple[str, str]]]:
    """Yield each version with the rest of its heading and the text below."""
    for section in re.split(r"^## ", changelog, flags=re.MULTILINE)[1:]:
        heading, _, text = section.partition("\n")
        if named := re.match(r"\[(.+?)\](.*)", heading):
            yield named[1], (named[2], text)


def _is_dated(behind: str) -> bool:
    found = re.fullmatch(r" - (\d{4}-\d{2}-\d{2})\s*", behind)
    try:
        return found is not None and date.fromisoformat(found[1]) is not None
    except ValueError:
        return False


def _has_entries(text: str) -> bool:
    return re.search(r"^[-*] ", text, re.MULTILINE) is not None


def _by_make(root: Path, target: str) -> Iterator[str]:
    before = _not_committed(root)
    try:
        with step(f"make {target}"):
            run(["make", target], cwd=root)
    except SetupError as error:
        yield str(error)
    if updated := sorted(_not_committed(root) - before):
        yield f"`make {target}` has updated {', '.join(updated)}; commit them"


def _not_committed(root: Path) -> set[str]:
    listed = run(["git", "status", "--porcelain", "--no-renames", "-z"], cwd=root)
    return {entry[len("XY ") :] for entry in listed.split("\0") if entry}
