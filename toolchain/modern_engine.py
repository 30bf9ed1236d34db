"""Docker Engine 29 for the tests, built from its Go modules.

Debian 12 has Docker Engine 20.10. Later engines differ, for example in how they store images.
"""

import os
import re
import shutil

from toolchain import debian, golang, talos_node
from toolchain.paths import CACHE
from toolchain.report import run

VERSION = 29
MOBY = "github.com/moby/moby/v2"
# Not on PATH, where it would replace the machine's own engine.
FOLDER = CACHE / "modern-engine"
DOCKERD = golang.Program(
    name="dockerd",
    package=f"{MOBY}/cmd/dockerd",
    module=MOBY,
    version_symbol=f"{MOBY}/dockerversion.Version",
    # The storage driver for btrfs needs a C compiler.
    tags="exclude_graphdriver_btrfs",
)
DOCKER_PROXY = golang.Program(
    name="docker-proxy", package=f"{MOBY}/cmd/docker-proxy", pinned_in="dockerd"
)
# The engine needs runc 1.2 or later.
RUNC = golang.Program(
    name="runc",
    package="github.com/opencontainers/runc",
    tags="seccomp",
)


def ensure() -> None:
    """Build the engine, unless the machine's own is as recent.

    Raises:
        SetupError: it cannot be built.
    """
    if _is_installed():
        return
    for program in (DOCKERD, DOCKER_PROXY):
        golang.ensure(program, FOLDER)
    golang.ensure(RUNC, FOLDER, _libseccomp)
    for program in (talos_node.CONTAINERD, talos_node.SHIM):
        golang.ensure(program, talos_node.PROGRAMS)


def search_path() -> str:
    """Return the value of PATH with which `dockerd` is this engine.

    It finds containerd and runc on PATH.
    """
    own = [] if _is_installed() else [FOLDER, talos_node.PROGRAMS]
    return os.pathsep.join([*map(str, own), os.environ["PATH"]])


def _is_installed() -> bool:
    if not shutil.which("dockerd"):
        return False
    found = re.search(r"version v?(\d+)", run(["dockerd", "--version"]))
    return found is not None and int(found[1]) >= VERSION


def _libseccomp() -> dict[str, str]:
    """The environment in which Go finds the header files and the static libseccomp of Debian."""
    folder = debian.unpacked("libseccomp-dev")
    (library,) = folder.glob("usr/lib/*/libseccomp.a")
    return {
        "CGO_ENABLED": "1",
        "CGO_CFLAGS": f"-I{folder / 'usr/include'}",
        "CGO_LDFLAGS": str(library),
        # Instead of pkg-config, which would look for an installed library.
        "PKG_CONFIG": "true",
    }
