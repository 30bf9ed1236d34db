"""Records the commands that a new user runs, as the animated picture in README.md.

Run by `make recording`. The commands run for real, in a terminal, on a stack of their own; nothing
of what they print is changed. As in `make demo`, the upstream is a registry on this machine, and
nodes are simulated. Waiting is shortened, and long commands are played faster than they ran.
Everything that was created is removed.
"""

import argparse
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from benchmarks.support import animation, caches, session, terminal, upstream
from benchmarks.support.caches import Project
from benchmarks.support.frames import Take, play
from benchmarks.support.nodes import boot
from benchmarks.support.pulumi_stack import ROOT
from benchmarks.support.site import open_site
from benchmarks.support.terminal import Size
from toolchain.report import say, step

# `cachectl status` and `cachectl watch` need this width.
SIZE = Size(138, 34)
MBIT = 500
SMALL = 0.05
NODES = 4
# Until `cachectl watch` follows all logs, and until it has shown the last pull.
SETTLES_S = 1.0
# How long the output is played at most: 30 seconds in all.
UP_S = 6.5
PULLS_S = 7.0
OTHERS_S = 2.5
HOLD_S = 1.5
END_S = 3.5
WARMED = ("registry.k8s.io/pause:3.10.1", "ghcr.io/siderolabs/kubelet:v1.34.1")
WITHIN_S = 300
PICTURE = ROOT / "docs" / "terminal.svg"
TITLE = (
    "A terminal: pulumi up creates three caches, cachectl warm fills them, cachectl watch shows "
    "the pulls of four nodes, and cachectl status shows what the caches hold and saved"
)


def main(arguments: Sequence[str]) -> int:
    """Record the commands; returns the exit code."""
    parser = argparse.ArgumentParser(prog="make recording", description=__doc__)
    parser.add_argument("--small", action="store_true", help="a twentieth of the images' sizes")
    parser.add_argument("--into", type=Path, default=PICTURE, help="the SVG to write")
    parser.add_argument(
        "--name", default="demo", help="prefix of the names of everything on the engine"
    )
    options = parser.parse_args(arguments)
    return session.run(lambda: _record(options), within_s=WITHIN_S)


def _record(options: argparse.Namespace) -> None:
    session.need([*upstream.TOOLS, terminal.TOOL, "pulumi", "cachectl"])
    with (
        open_site(options.name) as site,
        upstream.running(site, SMALL if options.small else 1.0) as source,
        caches.project(site, source.url) as project,
    ):
        source.limit(MBIT)
        takes = list(_takes(project))
    picture = animation.draw(play(takes, SIZE), SIZE, TITLE)
    options.into.write_text(picture, encoding="utf-8")
    say(f"written: {options.into}, {len(picture.encode()) / 1000:.0f} kB")


def _takes(project: Project) -> Iterator[Take]:
    stack = project.stack
    # A user with one stack has to name it to neither.
    env = stack.env() | {"CACHECTL_STACK": stack.name}

    def take(
        *command: str,
        comment: str = "",
        meanwhile: Callable[[], object] | None = None,
        within_s: float = OTHERS_S,
        hold_s: float = HOLD_S,
    ) -> Take:
        typed = shlex.join(command)
        with step(typed):
            printed = terminal.run(command, SIZE, cwd=stack.folder, env=env, meanwhile=meanwhile)
        return Take(typed + comment, printed, within_s, hold_s)

    yield take("pulumi", "up", "--yes", comment="    # make up runs this", within_s=UP_S)
    endpoints = project.endpoints()
    yield take("cachectl", "warm", *WARMED)

    def pull() -> None:
        time.sleep(SETTLES_S)
        boot([endpoints] * NODES)
        time.sleep(SETTLES_S)

    yield take(
        "cachectl",
        "watch",
        comment=f"    # while {NODES} nodes boot",
        meanwhile=pull,
        within_s=PULLS_S,
    )
    yield take("cachectl", "status", hold_s=END_S)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
