"""How fast a cache with content answers, and how much memory caches need.

Run by `make bench`. Compares this project's caches with the guide's, and with an nginx that serves
one file. Creates containers, volumes and a stack, and removes them. The table is written to build/.
"""

import io
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlsplit

import httpx2
from docker.models.containers import Container

from benchmarks.support import image_set, session, table, upstream
from benchmarks.support.image_set import MB, Image
from benchmarks.support.pulumi_stack import Stack
from benchmarks.support.session import CannotRunError
from benchmarks.support.site import Site, open_site
from components.settings import front
from talos_registry_cache.engine import labels, registry_image
from talos_registry_cache.registry.manifests import ACCEPT

NGINX, GUIDE, OURS = "nginx alone", "the guide's way", "this project"
CACHES = 5
LAYER_MB = 100
CLIENTS, ROUNDS, ROUND_S = 4, 3, 3.0
TAGS = 200
FRESH_S, PATIENCE_S = 2, 10
WITHIN_S = 600
CHUNK = 1 << 20
PORT = 5000
FOLDER = "/tmp"  # noqa: S108 - in a container
CONFIGURATION = f"""\
daemon off; pid /tmp/nginx.pid; error_log stderr; worker_processes 2;
events {{}}
http {{
  access_log off; sendfile on; tcp_nopush on;
  client_body_temp_path /tmp/1; proxy_temp_path /tmp/2; fastcgi_temp_path /tmp/3;
  uwsgi_temp_path /tmp/4; scgi_temp_path /tmp/5;
  server {{
    listen {PORT};
    location = /v2/ {{ return 200; }}
    location / {{ root /tmp; try_files /layer =404; }}
  }}
}}
"""


@dataclass(frozen=True, slots=True)
class Way:
    """A way to serve an image.

    Attributes:
        url: where it answers.
        containers: its containers, five caches if it is a cache.
    """

    url: str
    containers: Sequence[Container]


def main() -> int:
    """Measure and write; returns the exit code."""
    return session.run(_bench, within_s=WITHIN_S)


def _bench() -> None:
    image = image_set.image("registry.example/team/app:1", [LAYER_MB])
    blob = f"/v2/{image.repository}/blobs/{image.blobs[1].digest}"
    with (
        open_site("bench-pulls") as site,
        upstream.empty(site) as origin,
        _nginx(site, image) as plain,
        _guide(site, origin.url) as guide,
        _ours(site, origin.url) as ours,
    ):
        with httpx2.Client(base_url=origin.url, trust_env=False, timeout=60) as http:
            upstream.push(http, image)
        memory = {name: _memory(way) for name, way in ((GUIDE, guide), (OURS, ours))}
        ways = {NGINX: plain, GUIDE: guide, OURS: ours}
        rates = _throughput({name: way.url + blob for name, way in ways.items()})
        caches = {GUIDE: guide, OURS: ours}
        fresh = {name: _tags(way, image) for name, way in caches.items()}
        origin.silence()
        time.sleep(FRESH_S + 1)
        silent = {name: _tag(way, image) for name, way in caches.items()}
    _report(rates, memory, fresh, silent)


@contextmanager
def _nginx(site: Site, image: Image) -> Iterator[Way]:
    """An nginx that answers every request with the image's layer."""
    (port,) = site.free_ports(1)
    with site.scope() as scope:
        container = scope.create(
            "nginx",
            {PORT: port},
            image=registry_image.on_engine(site.engine, front.DEFAULT_IMAGE),
            entrypoint=["nginx", "-c", f"{FOLDER}/nginx.conf"],
        )
        content = {"nginx.conf": CONFIGURATION.encode(), "layer": image.blobs[1].content}
        container.put_archive(FOLDER, _archive(content))
        container.start()
        url = f"http://{site.address}:{port}"
        upstream.wait_for(url, container)
        yield Way(url, [container])


def _archive(files: Mapping[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o644
            tar.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


@contextmanager
def _guide(site: Site, remote_url: str) -> Iterator[Way]:
    ports = site.free_ports(CACHES)
    urls = [f"http://{site.address}:{port}" for port in ports]
    environment = {"REGISTRY_PROXY_REMOTEURL": remote_url}
    with site.scope() as scope:
        containers = [
            scope.run(f"guide-{port}", {PORT: port}, environment=environment) for port in ports
        ]
        for url, container in zip(urls, containers, strict=True):
            upstream.wait_for(url, container)
        yield Way(urls[0], containers)


@contextmanager
def _ours(site: Site, remote_url: str) -> Iterator[Way]:
    upstreams = {
        f"registry-{port}.example": {"port": port, "remoteUrl": remote_url}
        for port in site.free_ports(CACHES)
    }
    caches = {
        "upstreams": upstreams,
        "storage": {"onDestroy": "delete"},
        "front": {"tagFreshness": f"{FRESH_S}s"},
    }
    with tempfile.TemporaryDirectory() as folder, site.stack_name() as name:
        stack = Stack(name, Path(folder) / "stack")
        stack.prepare({"caches": caches})
        stack.up()
        mirror = next(iter(stack.outputs()["mirrors"].values()))
        yield Way(mirror, site.engine.containers.list(filters={"label": f"{labels.STACK}={name}"}))


def _memory(way: Way) -> int:
    """Bytes of memory of all containers, without the page cache."""
    used = 0
    for container in way.containers:
        measured: Any = container.stats(stream=False)
        memory = measured["memory_stats"]
        kept = memory["stats"]
        used += memory["usage"] - kept.get("inactive_file", kept.get("total_inactive_file", 0))
    return used


def _throughput(urls: Mapping[str, str]) -> Mapping[str, float]:
    """Bytes per second for several clients together; the ways take turns."""
    rates: dict[str, list[float]] = {name: [] for name in urls}
    for url in urls.values():
        _receive(url, until=0)
    # A cache serves from its storage once the blob is complete and linked.
    time.sleep(1)
    for _ in range(ROUNDS):
        for name, url in urls.items():
            began = time.monotonic()
            with ThreadPoolExecutor(CLIENTS) as pool:
                until = began + ROUND_S
                sizes = [pool.submit(_receive, url, until) for _ in range(CLIENTS)]
                received = sum(size.result() for size in sizes)
            rates[name].append(received / (time.monotonic() - began))
    return {name: median(found) for name, found in rates.items()}


def _receive(url: str, until: float) -> int:
    """Receive a blob at least once, and again until then; returns the bytes."""
    address, received = urlsplit(url), 0
    buffer = memoryview(bytearray(CHUNK))
    with closing(HTTPConnection(str(address.hostname), address.port, timeout=60)) as connection:
        while received == 0 or time.monotonic() < until:
            connection.request("GET", address.path)
            answer = connection.getresponse()
            if answer.length != LAYER_MB * MB:
                raise CannotRunError(f"{url} answers {answer.status} with {answer.length} bytes")
            while count := answer.readinto1(buffer):
                received += count
            answer.close()
    return received


def _tags(way: Way, image: Image) -> float:
    """The median of the seconds that a tag takes, on one connection."""
    address = urlsplit(way.url)
    with closing(HTTPConnection(str(address.hostname), address.port, timeout=60)) as connection:
        return median(_ask(connection, image) for _ in range(TAGS))


def _tag(way: Way, image: Image) -> float | None:
    """The seconds that a tag takes; None if that is too long."""
    address = urlsplit(way.url)
    connection = HTTPConnection(str(address.hostname), address.port, timeout=PATIENCE_S)
    try:
        with closing(connection):
            return _ask(connection, image)
    except (OSError, HTTPException):
        return None


def _ask(connection: HTTPConnection, image: Image) -> float:
    path = f"/v2/{image.repository}/manifests/{image.tag}"
    began = time.monotonic()
    connection.request("GET", path, headers={"Accept": ACCEPT})
    answer = connection.getresponse()
    if answer.read() != image.index.content:
        raise CannotRunError(f"{connection.host} answers {answer.status} for {path}")
    return time.monotonic() - began


def _report(
    rates: Mapping[str, float],
    memory: Mapping[str, int],
    fresh: Mapping[str, float],
    silent: Mapping[str, float | None],
) -> None:
    rows = [
        [
            f"warm layer, {CLIENTS} clients, of nginx alone",
            *(f"{rates[name] / MB:.0f} MB/s, {rates[name] / rates[NGINX]:.2f}x" for name in rates),
            "at least 0.90x",
        ],
        [
            f"warm tag, median of {TAGS}",
            "",
            *(f"{fresh[name] * 1000:.1f} ms" for name in (GUIDE, OURS)),
            "under 1 ms",
        ],
        ["tag, upstream silent", "", *(_in_ms(silent[name]) for name in (GUIDE, OURS)), "50 ms"],
        [
            f"memory of {CACHES} idle caches",
            "",
            *(table.megabytes(memory[name]) for name in (GUIDE, OURS)),
            "at most 100 MB",
        ],
    ]
    note = f"On {table.machine()}; throughput is the median of {ROUNDS} rounds.\n\n"
    table.write("bench-pulls.md", note + table.markdown(["", NGINX, GUIDE, OURS, "goal"], rows))


def _in_ms(seconds: float | None) -> str:
    return f"none in {PATIENCE_S} s" if seconds is None else f"{seconds * 1000:.1f} ms"


if __name__ == "__main__":
    sys.exit(main())
