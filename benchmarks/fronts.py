"""Which program should stand before the caches, so that concurrent pulls share one fetch.

Takes about ten minutes, and needs root and Debian's or Ubuntu's packages. Everything listens on
127.0.0.1 or in a network namespace, and is removed at the end. The table is written to build/.
"""

import argparse
import functools
import hashlib
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path
from statistics import median

from benchmarks.support import front_bed, session, table
from benchmarks.support.front_bed import Site, Upstream
from benchmarks.support.front_client import Got, ask, connect, get
from benchmarks.support.image_set import MB, Content, Image
from benchmarks.support.session import CannotRunError
from tests.integration.support.processes import CommandFailedError
from toolchain.report import SetupError, step

CANDIDATES: Mapping[str, Sequence[str]] = {
    "cache alone": (),
    "nginx": ("nginx",),
    "Varnish": ("Varnish",),
    "nginx, Varnish": ("nginx", "Varnish"),
    "nginx, ATS": ("nginx", "ATS"),
}
LAYERS_MB = (20, 15, 12, 8, 5)
LAYERS_AT_ONCE = 3
HERDS = (1, 4, 16)
LINK_MBIT, SLOW_MBIT, UNLIMITED_MBIT = 100, 40, 10_000
SLOW_MB = 20
LARGE_MB = 1000
PACED_MB, PACED_S, FAST_MBIT = 60, 10, 400
FRESH_S, SILENCE_S = 2, 8
LATE_S = 0.7
WARM_CLIENTS, WARM_S = 4, 3
TAGS = 50
WITHIN_S = 1500

Row = dict[str, str]


def main(arguments: Sequence[str]) -> int:
    """Measure and write; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fronts", description=__doc__)
    parser.add_argument("--only", nargs="*", default=[*CANDIDATES], choices=[*CANDIDATES])
    parser.add_argument("--large", action="store_true", help="also a layer of 1 GB")
    options = parser.parse_args(arguments)
    work = functools.partial(_bench, options.only, is_large=options.large)
    return session.run(work, within_s=WITHIN_S)


def _bench(names: Sequence[str], *, is_large: bool) -> None:
    session.need(["tc", "nsenter", "ip"])
    rows = {}
    try:
        with (
            tempfile.TemporaryDirectory() as folder,
            front_bed.running_upstream(Path(folder) / "upstream") as upstream,
        ):
            for number, name in enumerate(names):
                with step(name):
                    home = Path(folder) / str(number)
                    rows[name] = _candidate(home, upstream, name, is_large=is_large)
    except (CommandFailedError, SetupError) as error:
        raise CannotRunError(str(error)) from error
    labels = list(dict.fromkeys(label for row in rows.values() for label in row))
    lines = [[label, *(row.get(label, "") for row in rows.values())] for label in labels]
    text = f"On {table.machine()}.\n\n{table.markdown(['', *rows], lines)}"
    table.write("bench-fronts.md", text)


def _candidate(home: Path, upstream: Upstream, name: str, *, is_large: bool) -> Row:
    """A column of the table."""
    values = {
        "FRESH": str(FRESH_S),
        "SILENCE": str(SILENCE_S),
        "BLOBTTL": "1h",
        "VARNISH": "file,FOLDER/blobs,2g",
        "ATS": "2G",
    }
    measures: list[Callable[[Site, Upstream], Row]] = [
        _idle, _herds, _twice, _warm, _waiting, _beside, _leaves,
        _slow_client, _tags, _breaks, _silent, _killed,
    ]  # fmt: skip
    if is_large:
        measures.append(_large)
    found: Row = {}
    with front_bed.running_site(home, upstream.url, CANDIDATES[name], values) as site:
        for measure in measures:
            try:
                with step(f"    {measure.__name__}"):
                    found |= measure(site, upstream)
            except (OSError, HTTPException) as error:
                found[f"failed: {measure.__name__}"] = repr(error)
    return found


def _idle(site: Site, _: Upstream) -> Row:
    return {"memory, idle": table.megabytes(site.memory("VmRSS"))}


def _herds(site: Site, upstream: Upstream) -> Row:
    row = {}
    for count in HERDS:
        upstream.link.limit(UNLIMITED_MBIT)
        image = upstream.push(LAYERS_MB)
        upstream.link.limit(LINK_MBIT)
        before, began = upstream.sent(), time.monotonic()
        _pull(site, image, count)
        took = time.monotonic() - began
        copies = table.copies(upstream.sent() - before, sum(LAYERS_MB) * MB)
        row[f"{count} cold: copies, time"] = f"{copies}, {table.seconds(took)}"
    return row | {"memory, peak in the herds": table.megabytes(site.memory("VmHWM"))}


def _pull(site: Site, image: Image, count: int) -> None:
    """Let clients pull an image at once, and check every digest."""

    def client() -> None:
        path = f"/v2/{image.repository}/manifests"
        index = get(site.url, f"{path}/{image.tag}")
        manifest = get(site.url, f"{path}/{image.manifest.digest}")
        wanted = (image.index, image.manifest, *image.blobs)
        with ThreadPoolExecutor(LAYERS_AT_ONCE) as pool:
            blobs = pool.map(lambda blob: get(site.url, _path(image, blob)), image.blobs)
        for got, content in zip((index, manifest, *blobs), wanted, strict=True):
            if not got.has(content):
                raise CannotRunError(f"a client received {got} instead of {content.digest}")

    with ThreadPoolExecutor(count) as pool:
        for pulled in [pool.submit(client) for _ in range(count)]:
            pulled.result()


def _twice(site: Site, _: Upstream) -> Row:
    """Blocks on disk, after the herds."""
    front, cache = (
        sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())
        for folder in (site.own, site.stored)
    )
    return {
        "on disk: front, cache": f"{table.megabytes(front)}, {table.megabytes(cache)}",
    }


def _warm(site: Site, upstream: Upstream) -> Row:
    upstream.link.limit(UNLIMITED_MBIT)
    image = upstream.push(LAYERS_MB)
    _pull(site, image, 1)
    until = time.monotonic() + WARM_S

    def client(_: int) -> int:
        size = 0
        while time.monotonic() < until:
            size += get(site.url, _path(image, image.blobs[1]), is_hashed=False).size
        return size

    before = time.monotonic()
    with ThreadPoolExecutor(WARM_CLIENTS) as pool:
        size = sum(pool.map(client, range(WARM_CLIENTS)))
    rate = size / (time.monotonic() - before)
    return {f"warm, {WARM_CLIENTS} clients": f"{table.megabytes(rate)}/s"}


def _waiting(site: Site, upstream: Upstream) -> Row:
    """Three clients that ask while a layer arrives."""
    image, blob = _slow_layer(upstream)
    before = upstream.sent()
    with ThreadPoolExecutor(4) as pool:
        _begun(pool, site, image, blob)
        late = [pool.submit(get, site.url, _path(image, blob)) for _ in range(3)]
        answers = [one.result() for one in late]
    copies = table.copies(upstream.sent() - before, len(blob.content))
    first = max(got.first_s for got in answers)
    good = sum(got.has(blob) for got in answers)
    return {
        f"{SLOW_MB} MB at {SLOW_MBIT} Mbit/s: first byte for 3 who wait": f"{first:.2f} s",
        "their whole layers, copies": f"{good} of 3, {copies}",
    }


def _beside(site: Site, upstream: Upstream) -> Row:
    """HEAD and Range, and another repository, beside a fetch."""
    image, blob = _slow_layer(upstream)
    path = _path(image, blob)
    before = upstream.sent()
    with ThreadPoolExecutor(3) as pool:
        first = _begun(pool, site, image, blob)
        head = pool.submit(get, site.url, path, "HEAD")
        part = pool.submit(get, site.url, path, headers={"Range": "bytes=100-199"})
        headed, ranged = head.result(), part.result()
        is_whole = first.result().has(blob)
    wanted = hashlib.sha256(blob.content[100:200]).hexdigest()
    is_right = ranged.digest == f"sha256:{wanted}"
    size = "the 100 bytes" if is_right else f"{ranged.size} bytes"
    copies = table.copies(upstream.sent() - before, len(blob.content))
    return {
        "HEAD beside a GET": f"{headed.status} in {headed.seconds:.2f} s",
        "Range beside a GET": f"{ranged.status}, {size} in {ranged.seconds:.2f} s",
        "these three: copies, GET whole": f"{copies}, {is_whole}",
    }


def _leaves(site: Site, upstream: Upstream) -> Row:
    """The first client leaves while a second one waits; then while nobody waits."""
    image, blob = _slow_layer(upstream)
    before = upstream.sent()
    leave = threading.Event()
    with ThreadPoolExecutor(2) as pool:
        _begun(pool, site, image, blob, leave)
        second = pool.submit(get, site.url, _path(image, blob))
        time.sleep(LATE_S)
        leave.set()
        got = second.result()
    copies = table.copies(upstream.sent() - before, len(blob.content))
    return {"first client leaves: second has all, copies": f"{got.has(blob)}, {copies}"}


def _slow_client(site: Site, upstream: Upstream) -> Row:
    """The first client is slow; the link is not."""
    upstream.link.limit(UNLIMITED_MBIT)
    image = upstream.push([PACED_MB])
    upstream.link.limit(FAST_MBIT)
    path = _path(image, image.blobs[1])
    before = upstream.sent()
    with ThreadPoolExecutor(2) as pool:
        slow = pool.submit(get, site.url, path, pace=PACED_MB * MB / PACED_S)
        time.sleep(LATE_S / 4)
        fast = get(site.url, path)
        is_whole = slow.result().has(image.blobs[1]) and fast.has(image.blobs[1])
    copies = table.copies(upstream.sent() - before, PACED_MB * MB)
    label = f"slow first client ({PACED_S} s): the second one's time, both whole, copies"
    return {label: f"{table.seconds(fast.seconds)}, {is_whole}, {copies}"}


def _tags(site: Site, upstream: Upstream) -> Row:
    """The latency of a stored tag."""
    upstream.link.limit(UNLIMITED_MBIT)
    image = upstream.push([0.1])
    path = f"/v2/{image.repository}/manifests/{image.tag}"
    get(site.url, path)
    fresh = median(get(site.url, path).seconds for _ in range(TAGS))
    row = {"tag, fresh": f"{fresh * 1000:.1f} ms"}
    time.sleep(FRESH_S + 0.5)
    upstream.server.signal(signal.SIGSTOP)
    try:
        row["tag, stale, upstream frozen"] = _twice_on_one_connection(site, path, image)
    finally:
        upstream.server.signal(signal.SIGCONT)
    time.sleep(FRESH_S + 0.5)
    get(site.url, path)
    time.sleep(FRESH_S + 0.5)
    upstream.server.kill()
    try:
        row["tag, stale, upstream refuses"] = _twice_on_one_connection(site, path, image)
    finally:
        upstream.server.start()
    return row


def _twice_on_one_connection(site: Site, path: str, image: Image) -> str:
    """The latencies of a tag twice on one connection, and once on another."""
    with closing(connect(site.url, SILENCE_S)) as connection:
        answers = [ask(connection, path) for _ in range(2)]
    answers.append(get(site.url, path, silence_s=SILENCE_S))
    return ", ".join(
        f"{got.seconds * 1000:.1f} ms" if got.has(image.index) else f"no ({got.seconds:.1f} s)"
        for got in answers
    )


def _breaks(site: Site, upstream: Upstream) -> Row:
    """The upstream is killed in the middle of a layer."""
    image, blob = _slow_layer(upstream)
    answers = _during(site, image, blob, upstream.server.kill)
    upstream.server.start()
    return _after("upstream killed", site, image, blob, answers)


def _silent(site: Site, upstream: Upstream) -> Row:
    """The upstream is frozen in the middle of a layer."""
    image, blob = _slow_layer(upstream)
    try:
        answers = _during(site, image, blob, lambda: upstream.server.signal(signal.SIGSTOP))
    finally:
        upstream.server.signal(signal.SIGCONT)
    return _after("upstream frozen", site, image, blob, answers)


def _killed(site: Site, upstream: Upstream) -> Row:
    """The fronts are killed in the middle of a layer."""
    if not site.fronts:
        return {}
    image, blob = _slow_layer(upstream)

    def kill() -> None:
        for server in site.fronts:
            server.kill()

    answers = _during(site, image, blob, kill)
    began = time.monotonic()
    for server in site.fronts:
        server.start()
    row = {"front killed: listens again after": table.seconds(time.monotonic() - began)}
    return row | _after("front killed", site, image, blob, answers)


def _large(site: Site, upstream: Upstream) -> Row:
    """Four clients and a layer of 1 GB."""
    upstream.link.limit(UNLIMITED_MBIT)
    image = upstream.push([LARGE_MB])
    before, began = upstream.sent(), time.monotonic()
    with ThreadPoolExecutor(4) as pool:
        path = _path(image, image.blobs[1])
        answers = [pool.submit(get, site.url, path) for _ in range(4)]
        good = sum(answer.result().has(image.blobs[1]) for answer in answers)
    took = time.monotonic() - began
    copies = table.copies(upstream.sent() - before, LARGE_MB * MB)
    peak, mapped = site.memory("VmHWM"), site.memory("RssFile")
    return {
        "1 GB, 4 clients: whole, copies, time": f"{good} of 4, {copies}, {table.seconds(took)}",
        "1 GB: memory, peak; mapped files": f"{table.megabytes(peak)}; {table.megabytes(mapped)}",
    }


def _slow_layer(upstream: Upstream) -> tuple[Image, Content]:
    """Push an image with one layer, and make the link slow."""
    upstream.link.limit(UNLIMITED_MBIT)
    image = upstream.push([SLOW_MB])
    upstream.link.limit(SLOW_MBIT)
    return image, image.blobs[1]


def _begun(
    pool: ThreadPoolExecutor,
    site: Site,
    image: Image,
    blob: Content,
    leave: threading.Event | None = None,
) -> Future[Got]:
    """Let a client begin to receive a blob."""
    getting = pool.submit(get, site.url, _path(image, blob), leave=leave)
    time.sleep(LATE_S)
    return getting


def _during(site: Site, image: Image, blob: Content, fault: Callable[[], None]) -> Sequence[Got]:
    """What two clients receive of a blob when something happens in the middle."""
    with ThreadPoolExecutor(2) as pool:
        first = _begun(pool, site, image, blob)
        second = pool.submit(get, site.url, _path(image, blob))
        time.sleep(LATE_S)
        fault()
        return first.result(), second.result()


def _after(what: str, site: Site, image: Image, blob: Content, answers: Sequence[Got]) -> Row:
    """What the two clients received, and what one receives later."""
    ends = ", ".join(
        "whole" if got.has(blob) else "FALSE" if got.is_whole and got.status == HTTPStatus.OK
        else f"cut after {got.seconds - LATE_S:.1f} s"
        for got in answers
    )  # fmt: skip
    again = [get(site.url, _path(image, blob)) for _ in range(2)]
    later = ", ".join(
        "whole" if got.has(blob) else f"{got.status} {got.size} bytes in {got.seconds:.1f} s"
        for got in again
    )
    return {f"{what}: two clients": ends, f"{what}: two later": later}


def _path(image: Image, blob: Content) -> str:
    return f"/v2/{image.repository}/blobs/{blob.digest}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
