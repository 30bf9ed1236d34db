"""Podman and rootless Docker for the tests, from Debian's packages, unpacked and not installed."""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass

from toolchain import debian


@dataclass(frozen=True, slots=True)
class Tools:
    """Programs and the packages that have them.

    Attributes:
        programs: the programs.
        packages: packages of Debian 12 with the programs and their libraries.
    """

    programs: Sequence[str]
    packages: Sequence[str]


PODMAN = Tools(("podman", "conmon"), ("podman", "conmon", "libsubid4"))
# What an engine or Podman needs to run as an unprivileged user.
ROOTLESS = Tools(
    ("rootlesskit", "slirp4netns", "newuidmap"),
    ("rootlesskit", "slirp4netns", "libslirp0", "uidmap", "libsubid4"),
)


def ensure() -> None:
    """Unpack the packages of programs that are not installed.

    Raises:
        SetupError: they cannot be unpacked.
    """
    environment(PODMAN, ROOTLESS)


def environment(*tools: Tools) -> dict[str, str]:
    """Return the environment variables with which the programs run.

    Raises:
        SetupError: a package cannot be unpacked.
    """
    missing = [one for one in tools if not all(map(shutil.which, one.programs))]
    folders = [debian.unpacked(package) for one in missing for package in one.packages]
    found = {
        "PATH": [folder / "usr/bin" for folder in folders],
        "LD_LIBRARY_PATH": [
            path for folder in folders for path in folder.glob("usr/lib/*-linux-*")
        ],
    }
    return {
        name: os.pathsep.join([*map(str, paths), *filter(None, [os.environ.get(name)])])
        for name, paths in found.items()
        if paths
    }
