"""A cluster of four nodes boots cold and warm behind a slow link: the guide's way and this one.

Run it by `make demo`. It needs no network: the upstream is a registry of its own, whose link is
limited to 100 Mbit/s, with ten images of the sizes that a Talos cluster needs. Nodes are simulated;
each pulls all of them at once and checks every digest.

The table and the picture are written into build/. All that it makes on the engine, it removes.
"""

import argparse
import secrets
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import monotonic

from benchmarks.support import caches, nodes, session, table, upstream
from benchmarks.support.caches import Caches
from benchmarks.support.picture import Bar, Panel, draw
from benchmarks.support.pulumi_stack import ROOT
from benchmarks.support.site import Site, open_site
from benchmarks.support.upstream import Upstream
from toolchain.report import say, step

NODES = 4
WARM_BOOTS = 3
MBIT = 100
SMALL = 0.05
WITHIN_S = 900
GUIDE, OURS = WAYS = ("the guide's way", "this project")


@dataclass(frozen=True, slots=True)
class Way:
    """What one way to cache has come to.

    Attributes:
        ready_s: seconds until the caches were up, and warm where they are warmed.
        cold_s: seconds that nodes with nothing then took.
        again_s: seconds of nodes that are created again, the median of several times.
        sent: bytes that the upstream has sent for the first nodes.
        pulled: the same by the caches' own count, or None.
        sent_again: bytes that it has sent for those that are created again.
    """

    ready_s: float
    cold_s: float
    again_s: float
    sent: int
    pulled: int | None
    sent_again: int


@dataclass(frozen=True, slots=True)
class Results:
    """What a demonstration has come to.

    Attributes:
        ways: each way, by its title.
        copy_size: bytes that one node needs.
    """

    ways: Mapping[str, Way]
    copy_size: int

    @property
    def link_s(self) -> float:
        """Seconds that the link needs for one copy at least."""
        return self.copy_size * 8 / (MBIT * 1_000_000)


def main(arguments: Sequence[str]) -> int:
    """Run the demonstration; the exit code is 0 if it was."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--small", action="store_true", help="a twentieth of the sizes")
    parser.add_argument("--into", type=Path, default=ROOT / "build", help="where the results go")
    parser.add_argument(
        "--name",
        default=f"demo-{secrets.token_hex(3)}",
        help="what all that it makes on the engine is named after",
    )
    options = parser.parse_args(arguments)
    scale = SMALL if options.small else 1.0
    return session.run(lambda: _demonstrate(options.name, scale, options.into), within_s=WITHIN_S)


def _demonstrate(name: str, scale: float, folder: Path) -> None:
    session.need([*upstream.TOOLS, "pulumi"])
    results = _measure(name, scale)
    text = _table(results)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "demo.md").write_text(text)
    _draw(results, folder / "demo.png")
    print(text)
    say(f"written: {folder / 'demo.md'} and {folder / 'demo.png'}")


def _measure(name: str, scale: float) -> Results:
    with open_site(name) as site:
        say(f"==> an upstream with ten images, behind a link of {MBIT} Mbit/s")
        with upstream.running(site, scale) as source:
            source.limit(MBIT)
            say(f"    a node needs {table.megabytes(source.copy_size)}")
            ways = {GUIDE: _guide(site, source), OURS: _ours(site, source)}
            return Results(ways, source.copy_size)


def _guide(site: Site, source: Upstream) -> Way:
    say(f"==> {GUIDE}: docker run for each registry; nobody warms the caches")
    before, started = source.sent(), monotonic()
    with caches.guide(site, source.url) as running:
        return _booted(source, running, before, monotonic() - started)


def _ours(site: Site, source: Upstream) -> Way:
    say(f"==> {OURS}: pulumi up, with the images in the stack's settings")
    with caches.project(site, source.url) as project:
        before, started = source.sent(), monotonic()
        project.up_with_images()
        ready_s = monotonic() - started
        return _booted(source, project.caches(), before, ready_s)


def _booted(source: Upstream, running: Caches, before: int, ready_s: float) -> Way:
    say(f"    ready in {ready_s:.1f} s")
    with step(f"{NODES} nodes boot for the first time"):
        cold = nodes.boot(NODES, running.endpoints)
    first = source.sent()
    with step(f"{NODES} nodes that are created again boot, {WARM_BOOTS} times"):
        again = [nodes.boot(NODES, running.endpoints).seconds for _ in range(WARM_BOOTS)]
    return Way(
        ready_s=ready_s,
        cold_s=cold.seconds,
        again_s=median(again),
        sent=first - before,
        pulled=running.pulled(),
        sent_again=source.sent() - first,
    )


def _table(results: Results) -> str:
    size = results.copy_size
    ways = [results.ways[title] for title in WAYS]
    rows = [
        ("caches up, and warm where they are warmed", *(f"{way.ready_s:.1f} s" for way in ways)),
        ("first boot of all nodes after that", *(f"{way.cold_s:.1f} s" for way in ways)),
        ("cold, both together", *(f"{way.ready_s + way.cold_s:.1f} s" for way in ways)),
        ("warm: all nodes created again", *(f"{way.again_s:.1f} s" for way in ways)),
        ("upstream bytes, cold", *(table.megabytes(way.sent) for way in ways)),
        ("upstream bytes, cold, in copies", *(table.copies(way.sent, size) for way in ways)),
        ("the same by the caches' own count", *(table.megabytes(way.pulled) for way in ways)),
        ("upstream bytes, warm", *(table.megabytes(way.sent_again) for way in ways)),
    ]
    return f"""\
{NODES} nodes, each of which needs {table.megabytes(size)} in ten images, behind an upstream link of
{MBIT} Mbit/s, which needs {results.link_s:.1f} s for one copy. On {table.machine()}.

{table.markdown(["", *WAYS], rows)}"""


def _draw(results: Results, file: Path) -> None:
    ways, size = results.ways, results.copy_size

    def bars(values: Mapping[str, float], texts: Mapping[str, str]) -> list[Bar]:
        return [Bar(title, values[title], texts[title], title == OURS) for title in WAYS]

    cold = {title: way.ready_s + way.cold_s for title, way in ways.items()}
    warm = {title: way.again_s for title, way in ways.items()}
    sent = {title: way.sent / size for title, way in ways.items()}
    cold_texts = {title: table.seconds(value) for title, value in cold.items()}
    warm_texts = {title: table.seconds(value) for title, value in warm.items()}
    sent_texts = {
        title: f"{sent[title]:.2f}x ({table.megabytes(way.sent)})" for title, way in ways.items()
    }
    panels = [
        Panel("Cold: until all nodes have everything", bars(cold, cold_texts), results.link_s),
        Panel("Warm: the same nodes, created again", bars(warm, warm_texts)),
        Panel("Cold: bytes from upstream, in copies of the images", bars(sent, sent_texts), 1.0),
    ]
    note = (
        f"A node needs {table.megabytes(size)} in ten images; upstream link {MBIT} Mbit/s.\n"
        "Orange lines: what one copy takes over that link. "
        "Cold begins with empty caches, and includes making and warming them.\n"
        f"{table.machine()}"
    )
    draw(file, f"{NODES} nodes of a cluster pull their images", panels, note)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
