"""Reports what `make up` would install or build on this machine, and what it cannot."""

import shutil
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from toolchain import engine, golang, images, pulumi, talosctl, virtualenv
from toolchain.paths import ROOT
from toolchain.report import SetupError

DOCKER_HUB = "registry-1.docker.io"
CONNECT_TIMEOUT_S = 3
# Roughly the modules and the build cache of Pulumi, its plugin, a registry and talosctl.
BUILDS_NEED = 8_000_000_000
GB = 1_000_000_000


class State(StrEnum):
    """The state of a part; the value is the word in the report."""

    READY = "ready"
    INSTALLED = "make up"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Finding:
    """A part that a stack needs.

    Attributes:
        state: whether it is ready, `make up` would install or build it, or the user has to.
        text: the part, and what was found.
    """

    state: State
    text: str


def report(stack_file: Path) -> int:
    """Print the findings; return 1 if something is missing that `make up` cannot provide."""
    is_missing = False
    for finding in findings(stack_file):
        is_missing |= finding.state is State.MISSING
        print(f"  {finding.state:8} {finding.text}", flush=True)
    print("something is missing" if is_missing else "`make up` can start; nothing was changed")
    return int(is_missing)


def findings(stack_file: Path) -> Iterator[Finding]:
    """The parts that a stack needs, in the order in which `make up` prepares them."""
    yield _python()
    yield from _engine(stack_file)
    yield _pulumi()
    yield from _talosctl(stack_file)
    yield _docker_hub()
    yield _go()
    yield _disk()


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    if virtualenv.is_ready(virtualenv.RUNTIME):
        return Finding(State.READY, f"Python {version}, with the packages of requirements.txt")
    if problem := virtualenv.why_not_created():
        return Finding(State.MISSING, problem)
    return Finding(State.INSTALLED, f"Python {version}: installs requirements.txt into .venv")


def _engine(stack_file: Path) -> Iterator[Finding]:
    try:
        selected = engine.select()
        if engine.answers(selected.host):
            selected.export()
            version = engine.refuse_unsupported(selected.host)
            yield Finding(State.READY, f"container engine: version {version} at {selected}")
            yield _images(selected.host, stack_file)
        elif problem := engine.why_not_started(selected):
            yield Finding(State.MISSING, problem)
        else:
            how = "starts" if engine.is_installed() else "installs Debian's docker.io and starts"
            yield Finding(State.INSTALLED, f"container engine: {how} it")
            yield _images_unknown()
    except SetupError as error:
        yield Finding(State.MISSING, str(error))


def _images(host: str, stack_file: Path) -> Finding:
    if not virtualenv.is_ready(virtualenv.RUNTIME):
        return _images_unknown()
    if missing := images.missing(host, [stack_file]):
        return Finding(State.INSTALLED, f"images: pulls or builds {', '.join(missing)}")
    return Finding(State.READY, f"images that {stack_file.name} names and that can be built here")


def _images_unknown() -> Finding:
    return Finding(State.INSTALLED, "images: pulls those of the stack, or builds them")


def _pulumi() -> Finding:
    if pulumi.is_built():
        return Finding(State.READY, "Pulumi: built in this checkout")
    if problem := pulumi.why_not_used():
        text = f"{problem}: builds it in minutes; to install it instead: {pulumi.INSTALL}"
        return Finding(State.INSTALLED, text)
    return Finding(State.READY, f"Pulumi: {shutil.which('pulumi')}")


def _talosctl(stack_file: Path) -> Iterator[Finding]:
    if not talosctl.is_needed(stack_file.read_text()):
        return
    if found := talosctl.on_machine():
        yield Finding(State.READY, f"talosctl: {found}")
    else:
        yield Finding(State.INSTALLED, "talosctl: builds it in minutes")


def _docker_hub() -> Finding:
    try:
        socket.create_connection((DOCKER_HUB, 443), CONNECT_TIMEOUT_S).close()
    except OSError as error:
        text = f"{DOCKER_HUB} does not answer ({error}): builds images instead of pulling them"
        return Finding(State.INSTALLED, text)
    return Finding(State.READY, f"{DOCKER_HUB} answers: images are pulled")


def _go() -> Finding:
    if found := golang.on_machine():
        return Finding(State.READY, f"Go, for whatever has to be built: {found}")
    return Finding(State.INSTALLED, "Go: installs its Python package if something has to be built")


def _disk() -> Finding:
    free = shutil.disk_usage(ROOT).free
    state = State.READY if free >= BUILDS_NEED else State.MISSING
    needs = f"builds need {BUILDS_NEED / GB:.0f} GB"
    return Finding(state, f"disk of this checkout: {free / GB:.0f} GB free; {needs}")
