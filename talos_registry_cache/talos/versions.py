"""Versions of Talos, and finding talosctl."""

import re
import shutil
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from talos_registry_cache.talos import process
from talos_registry_cache.talos.errors import CommandError, TalosError

ANSWERS_WITHIN_S = 20.0


class VersionError(TalosError):
    """There is no talosctl, its version cannot be found out, or it is too old."""


class Generation(Enum):
    """Generations of `talosctl cluster create`; the value is the range of versions."""

    FIRECRACKER = "0.4 to 0.12"
    CLASSIC = "0.13 to 1.11"
    SUBCOMMANDS = "1.12 or later"


@dataclass(frozen=True, slots=True, order=True)
class Version:
    """A version of Talos or talosctl; a pre-release counts as its release.

    Attributes:
        major: the first number.
        minor: the second number.
        patch: the third number.
        suffix: what follows, such as `-rc.1`.
    """

    major: int
    minor: int
    patch: int = 0
    suffix: str = field(default="", compare=False)

    def __str__(self) -> str:
        """The version as in tags, such as `v1.13.0-rc.1`."""
        return f"v{self.major}.{self.minor}.{self.patch}{self.suffix}"

    @property
    def generation(self) -> Generation:
        """The generation of this version's `talosctl cluster create`."""
        if self < Version(0, 13):
            return Generation.FIRECRACKER
        return Generation.CLASSIC if self < Version(1, 12) else Generation.SUBCOMMANDS


# In 0.3 it was called osctl and had no mirrors (cmd/ in the source of these tags).
OLDEST = Version(0, 4)


@dataclass(frozen=True, slots=True)
class Talosctl:
    """An installed talosctl.

    Attributes:
        path: path of the program.
        version: its version.
    """

    path: str
    version: Version


def parse(text: str) -> Version | None:
    """Read a version such as `v1.11.5`, `1.12` or `v1.13.0-rc.1`; None for any other text."""
    match = re.fullmatch(
        r"v?(\d{1,5})\.(\d{1,5})(?:\.(\d{1,5}))?([-+][0-9A-Za-z.+-]+)?", text, re.ASCII
    )
    if match is None:
        return None
    major, minor, patch, suffix = match.groups()
    return Version(int(major), int(minor), int(patch or 0), suffix or "")


def find(program: str = "talosctl", *, within_s: float = ANSWERS_WITHIN_S) -> Talosctl:
    """Find talosctl and its version.

    All versions print their version after `Tag:` (pkg/version, v0.4 to v1.14).

    Args:
        program: a name to look up on PATH, or a path.
        within_s: seconds that it may take to answer.

    Raises:
        VersionError: it is missing, cannot be executed, does not answer as expected, or is too old.
    """
    path = _executable(program)
    try:
        said = process.capture([path, "version", "--client"], within_s=within_s)
    except CommandError as error:
        raise VersionError(f"{path} cannot tell its version: {error}") from error
    tag = re.search(r"^\s*Tag:[ \t]*(\S+)\s*$", said, re.MULTILINE)
    version = parse(tag[1]) if tag else None
    if version is None:
        raise VersionError(
            f"{path} is not a released talosctl: `version --client` printed {_excerpt(said)}; "
            "allowed: a line such as `Tag: v1.11.5`"
        )
    if version < OLDEST:
        raise VersionError(f"{path} is talosctl {version}; allowed: {_short(OLDEST)} or later")
    return Talosctl(path, version)


def version_range(since: Version, until: Version | None = None) -> str:
    """A range of versions as errors name it, such as `0.4 to 1.11`."""
    return f"{_short(since)} or later" if until is None else f"{_short(since)} to {_short(until)}"


def _executable(program: str) -> str:
    try:
        found = shutil.which(program)
        exists = Path(program).exists()
    except (OSError, ValueError) as error:
        # The name is too long, or has a character that paths cannot have.
        reason = error.strerror if isinstance(error, OSError) else error
        raise VersionError(
            f"found {_excerpt(program)}, which cannot be a path ({reason}); "
            "allowed: the path of talosctl, or its name on PATH"
        ) from error
    if found is not None:
        return str(Path(found).absolute())
    if exists:
        raise VersionError(f"{program} cannot be executed; make it executable or choose another")
    raise VersionError(
        f"there is no program {program}; install talosctl "
        f"({_short(OLDEST)} or later), or set its path"
    )


def _excerpt(text: str) -> str:
    limit = 80
    return repr(text if len(text) <= limit else f"{text[:limit]}…") if text else "nothing"


def _short(version: Version) -> str:
    return f"{version.major}.{version.minor}"
