"""Boots nodes cold and warm behind a slow link: the guide's way and this project's.

Run by `make demo`, with four nodes, and by `make bench`, with sixteen. Needs no network: the
upstream is a registry on this machine, behind a link of 100 Mbit/s, with ten images of the sizes
that a Talos cluster needs. Nodes are simulated; each pulls all images at once and checks every
digest. Once `make cluster-test` has built the images of Kubernetes, `make demo` boots real clusters
instead. A table and a picture are written to build/. Everything that was created is removed.
"""

import argparse
import secrets
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import monotonic

from benchmarks.support import caches, session, table, upstream
from benchmarks.support.caches import GUIDE, OURS, UNDECLARED, WAYS, Endpoints
from benchmarks.support.image_set import REFERENCES
from benchmarks.support.nodes import boot
from benchmarks.support.picture import Bar, Panel, draw
from benchmarks.support.site import Site, open_site
from benchmarks.support.upstream import Upstream
from toolchain import kubernetes_images
from toolchain.report import say, step

WARM_BOOTS = 3
MBIT = 100
SMALL = 0.05
WITHIN_S = 900


@dataclass(frozen=True, slots=True)
class Result:
    """The result of one way.

    Attributes:
        ready_s: seconds until the caches were up, and warm if they are warmed.
        cold_s: seconds that new nodes then took.
        again_s: seconds of nodes that are created again, the median of several boots.
        sent: bytes that the upstream sent for the first nodes.
        sent_again: bytes that it sent for the nodes that were created again.
    """

    ready_s: float
    cold_s: float
    again_s: float
    sent: int
    sent_again: int


def main(arguments: Sequence[str]) -> int:
    """Run the demonstration; returns the exit code."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--nodes", type=int, default=4, help="number of nodes")
    parser.add_argument(
        "--simulated", action="store_true", help="simulate nodes even if real ones can boot"
    )
    parser.add_argument(
        "--small", action="store_true", help="a twentieth of the sizes, with simulated nodes"
    )
    parser.add_argument("--into", type=Path, default=table.BUILD, help="folder for the results")
    parser.add_argument(
        "--name",
        default=f"demo-{secrets.token_hex(3)}",
        help="prefix of the names of everything on the engine",
    )
    options = parser.parse_args(arguments)
    if options.simulated or options.small or not kubernetes_images.LAYOUT.exists():
        return session.run(lambda: _demonstrate(options), within_s=WITHIN_S)
    # It connects to the engine when it is imported.
    from benchmarks import clusters  # noqa: PLC0415 - see above

    say("==> real clusters, from the images of make cluster-test, take about ten minutes;")
    say("    ARGS=--simulated takes two")
    return session.run(lambda: clusters.bench(options.into, 1), within_s=clusters.WITHIN_S)


def _demonstrate(options: argparse.Namespace) -> None:
    session.need([*upstream.TOOLS, "pulumi"])
    nodes = options.nodes
    with open_site(options.name) as site:
        say(f"==> an upstream with ten images, behind a link of {MBIT} Mbit/s")
        with upstream.running(site, SMALL if options.small else 1.0) as source:
            source.limit(MBIT)
            say(f"    a node needs {table.megabytes(source.copy_size)}")
            results = {
                GUIDE: _guide(site, source, nodes),
                UNDECLARED: _ours(site, source, nodes, UNDECLARED, ()),
                OURS: _ours(site, source, nodes, OURS, REFERENCES),
            }
            size = source.copy_size
    table.write("demo.md", _table(results, size, nodes), options.into)
    _draw(results, size, nodes, options.into / "demo.png")
    say(f"written: {options.into / 'demo.png'}")


def _guide(site: Site, source: Upstream, nodes: int) -> Result:
    say(f"==> {GUIDE}: docker run for each registry; nobody warms the caches")
    before, started = source.sent(), monotonic()
    with caches.guide(site, source.url) as endpoints:
        return _booted(source, [endpoints] * nodes, before, monotonic() - started)


def _ours(site: Site, source: Upstream, nodes: int, title: str, images: Sequence[str]) -> Result:
    say(f"==> {title}: pulumi up, with {len(images)} images in the stack's settings")
    with caches.project(site, source.url) as project:
        before, started = source.sent(), monotonic()
        endpoints = project.up(images)
        return _booted(source, [endpoints] * nodes, before, monotonic() - started)


def _booted(source: Upstream, nodes: list[Endpoints], before: int, ready_s: float) -> Result:
    say(f"    ready in {ready_s:.1f} s")
    with step(f"{len(nodes)} nodes boot for the first time"):
        cold = boot(nodes)
    first = source.sent()
    with step(f"{len(nodes)} nodes that are created again boot, {WARM_BOOTS} times"):
        again = [boot(nodes).seconds for _ in range(WARM_BOOTS)]
    return Result(ready_s, cold.seconds, median(again), first - before, source.sent() - first)


def _table(results: Mapping[str, Result], size: int, nodes: int) -> str:
    ways = [results[title] for title in WAYS]
    rows = [
        ("caches up, and warm if they are warmed", *(table.seconds(way.ready_s) for way in ways)),
        ("first boot of all nodes after that", *(table.seconds(way.cold_s) for way in ways)),
        ("cold, both together", *(table.seconds(way.ready_s + way.cold_s) for way in ways)),
        ("warm: all nodes created again", *(table.seconds(way.again_s) for way in ways)),
        ("upstream bytes, cold", *(table.megabytes(way.sent) for way in ways)),
        ("upstream bytes, cold, in copies", *(table.copies(way.sent, size) for way in ways)),
        ("upstream bytes, warm", *(table.megabytes(way.sent_again) for way in ways)),
    ]
    return (
        f"{nodes} nodes, each of which needs {table.megabytes(size)} in ten images, behind an "
        f"upstream link of {MBIT} Mbit/s,\n"
        f"which needs {table.link_seconds(size, MBIT):.1f} s for one copy. "
        f"On {table.machine()}.\n\n{table.markdown(['', *WAYS], rows)}"
    )


def _draw(results: Mapping[str, Result], size: int, nodes: int, file: Path) -> None:
    def panel(
        title: str, values: Mapping[str, float], texts: Mapping[str, str], mark: float | None = None
    ) -> Panel:
        return Panel(title, [Bar(way, values[way], texts[way], way != GUIDE) for way in WAYS], mark)

    cold = {title: way.ready_s + way.cold_s for title, way in results.items()}
    warm = {title: way.again_s for title, way in results.items()}
    sent = {title: way.sent / size for title, way in results.items()}
    sent_texts = {
        title: f"{sent[title]:.2f}x ({table.megabytes(way.sent)})" for title, way in results.items()
    }
    panels = [
        panel(
            "Cold: until all nodes have everything",
            cold,
            _texts(cold),
            table.link_seconds(size, MBIT),
        ),
        panel("Warm: the same nodes, created again", warm, _texts(warm)),
        panel("Cold: bytes from upstream, in copies of the images", sent, sent_texts, 1.0),
    ]
    note = (
        f"A node needs {table.megabytes(size)} in ten images; upstream link {MBIT} Mbit/s.\n"
        "Orange lines: one copy over that link. "
        "Cold starts with empty caches, and includes creating and warming them.\n"
        f"{table.machine()}"
    )
    draw(file, f"{nodes} nodes of a cluster pull their images", panels, note)


def _texts(durations: Mapping[str, float]) -> Mapping[str, str]:
    return {title: table.seconds(value) for title, value in durations.items()}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
