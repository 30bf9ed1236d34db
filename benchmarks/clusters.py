"""Boots a real Talos cluster with and without caches, cold, warm and without its upstream.

Run by `make cluster-bench`, and by `make demo` once the images of `make cluster-test` exist. Takes
about ten minutes, and five more for each further round. The cluster has two nodes with Kubernetes,
on an engine of its own. The upstream is a registry on that engine, behind a link of 100 Mbit/s. The
image of the nodes is on the engine beforehand. A table and a picture are written to build/, and
everything that was created is removed.
"""

import argparse
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import monotonic

from benchmarks.support import session, table
from benchmarks.support.picture import Bar, Panel, draw
from benchmarks.support.session import CannotRunError
from talos_registry_cache.endpoint import Endpoint
from talos_registry_cache.talos import machine_config
from talos_registry_cache.talos.machine_config import MirrorForm
from tests.integration.support import belongings, kubernetes, private_engine
from tests.integration.support.kubernetes import REGISTRIES, Site
from tests.integration.support.stack import CacheStack
from toolchain import kubernetes_images, talos_node
from toolchain.report import say, step

NAME = "real"
MBIT, UNLIMITED_MBIT = 100, 10_000
WITHIN_S = 3600

LOCAL = "no cache, registry on this machine"
NONE = "no cache"
GUIDE = "the guide's way, cold"
COLD = "this project, cold"
WARM = "this project, warm"
OFFLINE = "this project, upstream gone"
TITLES = (LOCAL, NONE, GUIDE, COLD, WARM, OFFLINE)
IMAGES = tuple(image.name for image in kubernetes_images.images())


@dataclass(frozen=True, slots=True)
class Boot:
    """A boot.

    Attributes:
        seconds: from the start of `pulumi up` until talosctl reports a healthy cluster.
        sent: bytes that the upstream sent.
    """

    seconds: float
    sent: int


@dataclass(frozen=True, slots=True)
class Boots:
    """Boots of one kind."""

    all: Sequence[Boot]

    @property
    def seconds(self) -> float:
        """The median of their durations."""
        return median(one.seconds for one in self.all)

    @property
    def sent(self) -> int:
        """The most bytes that the upstream sent for one of them."""
        return max(one.sent for one in self.all)

    def described(self) -> str:
        """The median, and the range of several."""
        if len(self.all) == 1:
            return table.seconds(self.seconds)
        every = sorted(one.seconds for one in self.all)
        return f"{table.seconds(self.seconds)} [{every[0]:.1f}-{every[-1]:.1f}]"


def main(arguments: Sequence[str]) -> int:
    """Measure and write; returns the exit code."""
    parser = argparse.ArgumentParser(prog="make cluster-bench", description=__doc__)
    parser.add_argument("--into", type=Path, default=table.BUILD, help="folder for the results")
    parser.add_argument(
        "--rounds", type=int, default=1, help="boots of each kind that can be repeated"
    )
    options = parser.parse_args(arguments)
    return session.run(lambda: bench(options.into, options.rounds), within_s=WITHIN_S)


def bench(into: Path, rounds: int) -> None:
    """Boot all kinds of clusters, and write the results.

    Args:
        into: the folder for the results.
        rounds: the number of boots of each kind that can be repeated.

    Raises:
        CannotRunError: this machine cannot run a private engine.
    """
    if reason := private_engine.why_impossible():
        raise CannotRunError(reason)
    measured: defaultdict[str, list[Boot]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        engine = folder / "engine"
        engine.mkdir()
        with kubernetes.site(engine) as site:
            for title, boot in _boots(site, folder, rounds):
                measured[title].append(boot)
    boots = {title: Boots(measured[title]) for title in TITLES}
    size = sum(map(kubernetes.size, IMAGES))
    table.write("clusters.md", _table(boots, size), into)
    _draw(boots, size, into / "clusters.png")
    say(f"written: {into / 'clusters.png'}")


def _boots(site: Site, folder: Path, rounds: int) -> Iterator[tuple[str, Boot]]:
    with kubernetes.stack(site, folder) as caches:
        with step("bring the image of the nodes to the engine"):
            _declare(caches, site, is_cached=False)
            caches.up()
        site.limit(MBIT)
        yield NONE, _boot_again(NONE, site, caches, is_cached=False)
    with kubernetes.stack(site, folder, storage={"onDestroy": "delete"}) as caches:
        _declare(caches, site)
        yield GUIDE, _boot(GUIDE, site, caches)
    with kubernetes.stack(site, folder) as caches:
        caches.configure({"references": IMAGES}, "images")
        _declare(caches, site)
        yield COLD, _boot(COLD, site, caches)
        for _ in range(rounds):
            site.limit(UNLIMITED_MBIT)
            yield LOCAL, _boot_again(LOCAL, site, caches, is_cached=False)
            site.limit(MBIT)
            yield WARM, _boot_again(WARM, site, caches)
            site.stop_upstream()
            yield OFFLINE, _boot_again(OFFLINE, site, caches)
            site.start_upstream()


def _declare(caches: CacheStack, site: Site, *, is_cached: bool = True) -> None:
    """Add the cluster to the stack file; its nodes use the caches, or the upstream itself."""
    settings = dict(kubernetes.CLUSTER)
    if not is_cached:
        direct = dict.fromkeys(REGISTRIES, Endpoint(site.upstream_url))
        form = MirrorForm.DOCUMENT
        patch = machine_config.mirror_patch(direct, skip_fallback=False, form=form)
        settings["configPatches"] = [*settings["configPatches"], patch]
        settings["mirrors"] = dict.fromkeys(REGISTRIES, False)
    caches.configure({NAME: settings}, "clusters")


def _boot_again(title: str, site: Site, caches: CacheStack, *, is_cached: bool = True) -> Boot:
    """Destroy the cluster, restart the caches, and create the cluster again."""
    caches.configure({}, "clusters")
    caches.up()
    for cache in belongings.caches(site.client, caches.name).values():
        cache.restart()
    _declare(caches, site, is_cached=is_cached)
    return _boot(title, site, caches)


def _boot(title: str, site: Site, caches: CacheStack) -> Boot:
    before = _sent(site)
    with step(title):
        started = monotonic()
        caches.up()
        took = monotonic() - started
    return Boot(took, _sent(site) - before)


def _sent(site: Site) -> int:
    """The bytes that the upstream has sent; none since it was stopped."""
    return site.sent() if site.runs else 0


def _table(boots: Mapping[str, Boots], size: int) -> str:
    rows = [
        (
            title,
            boot.described(),
            f"{boot.seconds / boots[LOCAL].seconds:.2f}x",
            table.megabytes(boot.sent),
            table.copies(boot.sent, size),
        )
        for title, boot in boots.items()
    ]
    link_s = table.link_seconds(size, MBIT)
    floor = link_s + boots[WARM].seconds
    return (
        f"Two nodes, Talos {talos_node.MACHINED.version} with Kubernetes "
        f"{kubernetes_images.KUBELET.version}, whose images are {table.megabytes(size)}, behind\n"
        f"an upstream link of {MBIT} Mbit/s, which needs {link_s:.1f} s for one copy.\n"
        f"On {table.machine()}.\n\n"
        + table.markdown(
            ["", "until healthy", "of the local registry", "from upstream", "in copies"], rows
        )
        + f"\nCold, compared with one copy over the link and a warm boot: "
        f"{boots[COLD].seconds / floor:.2f}x.\n"
    )


def _draw(boots: Mapping[str, Boots], size: int, file: Path) -> None:
    ours = (COLD, WARM, OFFLINE)
    times = [
        Bar(title, boot.seconds, table.seconds(boot.seconds), title in ours)
        for title, boot in boots.items()
    ]
    copies = [
        Bar(title, boot.sent / size, table.copies(boot.sent, size), title in ours)
        for title, boot in boots.items()
    ]
    panels = [
        Panel("From `pulumi up` to a healthy cluster", times),
        Panel("Bytes from upstream, in copies of the images", copies, 1.0),
    ]
    note = (
        f"Two real Talos nodes with Kubernetes {kubernetes_images.KUBELET.version}, whose images "
        f"are {table.megabytes(size)}; upstream link {MBIT} Mbit/s.\n"
        f"Orange line: one copy. Cold includes creating the caches.\n{table.machine()}"
    )
    draw(file, "A Talos cluster boots from the caches", panels, note)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
