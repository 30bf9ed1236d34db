"""What nodes cost the upstream, and how fast they are served: this project, the guide and nginx.

Run it by `make bench`. All ways run in turn on one machine and are reached through a port that the
engine publishes. It writes docs/benchmarks.md with a picture, and takes about ten minutes.
"""

import argparse
import os
import secrets
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from statistics import median
from time import monotonic
from urllib.parse import urlsplit

from benchmarks.support import caches, nodes, session, table, upstream, warming
from benchmarks.support.caches import Caches
from benchmarks.support.findings import Findings, Transfers
from benchmarks.support.image_set import REFERENCES
from benchmarks.support.pulumi_stack import ROOT
from benchmarks.support.site import Site, open_site
from benchmarks.support.upstream import Upstream
from talos_registry_cache.registry import manifests, reference
from toolchain import debian
from toolchain.report import SetupError, say, step

OURS = "this project"
GUIDE = "the guide's way, distribution 3.1"
GUIDE_2_8 = "the guide's way, distribution 2.8"
NGINX = "nginx, proxy_cache_lock"

NODES = (1, 2, 4, 8, 16)
ROUNDS = 3
WARM_ROUNDS = 3
TAG_REQUESTS = 200
FAST_MBIT = 1000
SLOW_MBIT = 100
BYTES_SCALE = 0.1
WITHIN_S = 1800

Way = Callable[[Site, str], AbstractContextManager[Caches]]
"""Makes empty caches of an upstream, and warms them where that is its way."""


def main(arguments: Sequence[str]) -> int:
    """Measure and write; the exit code is 0 if that was possible."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--into", type=Path, default=ROOT / "docs", help="where the results go")
    options = parser.parse_args(arguments)
    return session.run(lambda: _bench(options.into), within_s=WITHIN_S)


def _bench(folder: Path) -> None:
    session.need([*upstream.TOOLS, "pulumi"])
    started = monotonic()
    findings = Findings(datetime.now(UTC).date(), OURS, os.getloadavg()[0])
    ways = _ways(findings)
    with open_site(f"bench-{secrets.token_hex(3)}") as site:
        with _upstream(site, BYTES_SCALE, FAST_MBIT) as source:
            for number in range(ROUNDS):
                say(f"==> bytes from upstream, {number + 1} of {ROUNDS}")
                _bytes(site, source, ways, findings)
        with _upstream(site, 1.0, SLOW_MBIT) as source:
            _time(site, source, findings)
            source.limit(FAST_MBIT)
            _memory(site, source, findings)
            _throughput(site, source, ways, findings)
    findings.minutes = (monotonic() - started) / 60
    findings.write(folder)


def _ways(findings: Findings) -> Mapping[str, Way]:
    """The ways that this machine can run; what it cannot is said."""
    ways: dict[str, Way] = {OURS: _ours, GUIDE: caches.guide}
    for title, package, way in (
        (GUIDE_2_8, "docker-registry", caches.guide),
        (NGINX, "nginx", caches.nginx),
    ):
        try:
            ways[title] = partial(way, program=debian.unpacked(package))
        except SetupError as error:
            say(f"without {title}: {error}")
            findings.left_out[title] = str(error).splitlines()[0]
    return ways


@contextmanager
def _ours(site: Site, url: str) -> Iterator[Caches]:
    with caches.project(site, url) as project:
        project.up_with_images()
        yield project.caches()


@contextmanager
def _upstream(site: Site, scale: float, mbit: int) -> Iterator[Upstream]:
    with upstream.running(site, scale) as source:
        source.limit(mbit)
        yield source


def _bytes(site: Site, source: Upstream, ways: Mapping[str, Way], findings: Findings) -> None:
    """Bytes from upstream until so many nodes had everything, and again for as many new ones.

    Nodes fill the caches of all ways but this project's, which are full before and stay as they
    are. So these are made once for all numbers of nodes, and the others for each.
    """
    before = source.sent()
    with ways[OURS](site, source.url) as running:
        warmed = source.sent() - before
        for count in NODES:
            _boots(count, source, running, findings.of(OURS), warmed)
    for title, way in ways.items():
        for count in NODES if title != OURS else ():
            with way(site, source.url) as running:
                _boots(count, source, running, findings.of(title), 0)


def _boots(count: int, source: Upstream, running: Caches, found: Transfers, warmed: int) -> None:
    """Boot nodes twice, and note what the upstream has sent, with what it had sent before."""
    before = source.sent()
    nodes.boot(count, running.endpoints)
    first = source.sent()
    pulled = running.pulled()
    nodes.boot(count, running.endpoints)
    copies = (warmed + first - before) / source.copy_size
    say(f"    {found.way}, {table.count(count)}: {copies:.2f} copies")
    found.copies.setdefault(count, []).append(copies)
    found.again.append((source.sent() - first) / source.copy_size)
    if pulled is not None:
        found.pulled.setdefault(count, []).append(pulled / source.copy_size)


def _time(site: Site, source: Upstream, findings: Findings) -> None:
    """Time until four nodes have everything, from the `up` that brings in the images on."""
    findings.link_s = source.copy_size * 8 / (SLOW_MBIT * 1_000_000)
    for number in range(ROUNDS):
        with (
            step(f"four nodes at {SLOW_MBIT} Mbit/s, {number + 1} of {ROUNDS}"),
            caches.project(site, source.url) as project,
        ):
            project.up()
            endpoints = project.caches().endpoints
            started = monotonic()
            project.up_with_images()
            warmed = monotonic()
            nodes.boot(4, endpoints)
            findings.warming_s.append(warmed - started)
            findings.cold_s.append(monotonic() - started)


def _memory(site: Site, source: Upstream, findings: Findings) -> None:
    for number in range(ROUNDS):
        with (
            step(f"memory of warming, {number + 1} of {ROUNDS}"),
            caches.guide(site, source.url) as running,
        ):
            findings.peak_mb.append(warming.peak_mb(running.endpoints))


def _throughput(site: Site, source: Upstream, ways: Mapping[str, Way], findings: Findings) -> None:
    """How fast four nodes are served what is cached, by each way in turn."""
    for _ in range(ROUNDS):
        for title, way in ways.items():
            with step(f"warm, {title}"), way(site, source.url) as running:
                nodes.boot(1, running.endpoints, checked=False)
                boots = [
                    nodes.boot(4, running.endpoints, checked=False) for _ in range(WARM_ROUNDS)
                ]
                rate = median(boot.size / boot.seconds for boot in boots)
                findings.rate.setdefault(title, []).append(rate)
                findings.tag_ms.setdefault(title, []).append(_tag_ms(running))


def _tag_ms(running: Caches) -> float:
    """Milliseconds until a tag is answered, the median of many requests."""
    image = reference.parse(REFERENCES[-1])
    address = urlsplit(running.endpoints[image.registry])
    connection = HTTPConnection(str(address.hostname), address.port, timeout=10)
    path = f"/v2/{image.repository}/manifests/{image.target}"
    took = []
    for _ in range(TAG_REQUESTS):
        started = monotonic()
        connection.request("GET", path, headers={"Accept": manifests.ACCEPT})
        connection.getresponse().read()
        took.append(monotonic() - started)
    connection.close()
    return median(took) * 1000


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
