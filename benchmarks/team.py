"""What a team's caches serve and cost, and what a morning of twenty workstations downloads.

Run by `make bench`; takes about five minutes. Creates a Swarm of hosts in network namespaces, an
object store, and workstations on this machine's engine, and removes them all. The tables are
written to build/.
"""

import argparse
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from statistics import median

import docker
from pulumi.automation import CommandError

from benchmarks.support import nodes, processor, session, table, upstream, workstations
from benchmarks.support.image_set import REFERENCES, REGISTRIES
from benchmarks.support.session import CannotRunError
from tests.integration.support import network, team, team_bed
from tests.integration.support.processes import CommandFailedError
from tests.integration.support.swarm import Host
from tests.integration.support.team import Team
from toolchain.report import say, step

REGISTRY = "registry.example"
HOSTS = 3
CLIENTS_OF_A_NODE = 2
ROUNDS = 3
READ_S = 4
READY_WITHIN_S = 60
NODE_MBIT = 100
WARM_SCALE = 0.3

WORKSTATIONS = 20
TEAM_NODES = 2
MORNING_SCALE = 0.06
INTERNET_MBIT = 100

UNLIMITED_MBIT = 10_000
WITHIN_S = 1800


def main(arguments: Sequence[str]) -> int:
    """Measure and write; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.team", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    rounds = parser.parse_args(arguments).rounds
    return session.run(lambda: _bench(rounds), within_s=WITHIN_S)


def _bench(rounds: int) -> None:
    session.need([*upstream.TOOLS, "pulumi"])
    if reason := team_bed.why_impossible():
        raise CannotRunError(reason)
    try:
        with tempfile.TemporaryDirectory() as folder, _team(Path(folder)) as up:
            served = _served(up, rounds)
            mornings = _mornings(Path(folder), up)
    except (CommandFailedError, CommandError) as error:
        raise CannotRunError(str(error)) from error
    text = f"On {table.machine()}; rates are medians of {rounds} rounds.\n\n{served}\n{mornings}"
    table.write("bench-team.md", text)


@contextmanager
def _team(folder: Path) -> Iterator[Team]:
    say(f"==> {HOSTS} hosts in a Swarm, an object store, and a team's stack on them")
    bed_folder = folder / "bed"
    bed_folder.mkdir()
    with team_bed.running(bed_folder, hosts=HOSTS) as bed:
        # Without the gate that tests put before the upstream: it is slower.
        direct = {REGISTRY: {"port": team.PORT, "remoteUrl": bed.upstream.url}}
        # The images of the next morning have the same tags.
        front = {"tagFreshness": "0s"}
        with team.running(folder, bed, upstreams=direct, front=front) as up:
            yield up


def _served(up: Team, rounds: int) -> str:
    """What one, two and three nodes serve on limited links, and what a gigabyte costs."""
    paths = list(upstream.fill(up.bed.upstream.url, WARM_SCALE))
    with step("warm the caches"):
        _read(up, [up.bed.manager], paths)
        up.settled()
    _limit(up, NODE_MBIT)
    rates: dict[int, list[float]] = {}
    for number in range(rounds * HOSTS):
        count = number % HOSTS + 1
        with step(f"read from {count} of {HOSTS} nodes, links of {NODE_MBIT} Mbit/s"):
            size = _read(up, [*up.bed.hosts[:count]] * CLIENTS_OF_A_NODE, paths, READ_S)
        rates.setdefault(count, []).append(size / READ_S)
    _limit(up, UNLIMITED_MBIT)
    rows = [
        [str(count), f"{table.megabytes(rate)}/s", f"{rate / count / median(rates[1]):.2f}x"]
        for count, rate in ((count, median(found)) for count, found in rates.items())
    ]
    head = [f"nodes, links of {NODE_MBIT} Mbit/s", "rate", "of linear"]
    costs = [[name, table.seconds(cost)] for name, cost in _costs(up, paths).items()]
    return (
        f"{table.markdown(head, rows)}\n"
        f"{table.markdown(['a gigabyte from one node, links not limited', 'of a core'], costs)}"
    )


def _limit(up: Team, mbit: int) -> None:
    for host in up.bed.hosts:
        host.link.limit(mbit)


def _read(up: Team, hosts: Sequence[Host], paths: Sequence[str], for_s: float | None = None) -> int:
    """Read blobs through nodes, by one client for each entry; the bytes read by all of them.

    Args:
        up: the team.
        hosts: the nodes.
        paths: the blobs, in the order of the first client; the others start elsewhere.
        for_s: how long to read, again and again; without it, each client reads all blobs once.
    """
    ready = threading.Barrier(len(hosts), timeout=READY_WITHIN_S)
    ca = up.stack.outputs()["ca"]

    def client(number: int) -> int:
        at = len(paths) * number // len(hosts)
        size = 0
        with up.client(ca) as http:
            ready.wait()
            until = time.monotonic() + (for_s or 0)
            while True:
                for path in (*paths[at:], *paths[:at]):
                    with http.stream("GET", team.endpoint(hosts[number]) + path) as answer:
                        for piece in answer.raise_for_status().iter_raw():
                            size += len(piece)
                            if for_s and time.monotonic() > until:
                                return size
                if not for_s:
                    return size

    with ThreadPoolExecutor(len(hosts)) as pool:
        return sum(pool.map(client, range(len(hosts))))


def _costs(up: Team, paths: Sequence[str]) -> Mapping[str, float]:
    """Seconds of a core that a gigabyte costs, by who spends them."""
    groups = {
        "caches": set().union(*(network.pids(host.name) for host in up.bed.hosts)),
        "object store": network.pids(up.bed.store.link.namespace),
    }
    before = {name: processor.used_s(pids) for name, pids in groups.items()}
    with step("read from one node, links not limited"):
        size = _read(up, [up.bed.manager] * CLIENTS_OF_A_NODE, paths, READ_S)
    return {
        name: (processor.used_s(pids) - before[name]) / (size / 1e9)
        for name, pids in groups.items()
    }


def _mornings(folder: Path, up: Team) -> str:
    """What workstations cost the internet that all start at once, with a new set of images."""
    url = up.bed.upstream.url
    rows = []
    with closing(docker.from_env(timeout=60)) as engine:
        say(f"==> {WORKSTATIONS} workstations without a team")
        with workstations.on_their_own(folder, engine, url, WORKSTATIONS) as caches:
            rows.append(_morning(up, caches, "no team"))
        say(f"==> {WORKSTATIONS} workstations of a team")
        with workstations.of_team(folder, engine, up, TEAM_NODES, WORKSTATIONS) as caches:
            rows.append(_morning(up, caches, "two tiers, warmed", is_warmed=True))
            rows.append(_morning(up, caches, "two tiers"))
    head = [f"{WORKSTATIONS} workstations at once", "from the internet", "until all are done"]
    return table.markdown(head, rows)


def _morning(
    up: Team, caches: Sequence[str], title: str, *, is_warmed: bool = False
) -> Sequence[str]:
    """A row of the table."""
    source = up.bed.upstream
    size = upstream.copy_size(upstream.fill(source.url, MORNING_SCALE))
    source.limit(INTERNET_MBIT)
    before = source.sent()
    if is_warmed:
        _warm(up)
    boot = nodes.boot([dict.fromkeys(REGISTRIES, url) for url in caches])
    row = [title, table.copies(source.sent() - before, size), table.seconds(boot.seconds)]
    source.limit(UNLIMITED_MBIT)
    say(f"    {', '.join(row)}")
    return row


def _warm(up: Team) -> None:
    """Bring the images in through the `images` of the team's stack."""
    names = [text.partition("/")[2] for text in REFERENCES]
    up.stack.configure({"references": [f"{REGISTRY}/{name}" for name in names]}, key="images")
    with step("the team's stack brings the images in"):
        # A layer that images share goes through a temporary registry on the manager's loopback.
        enter = up.bed.manager.engine.enter
        up.stack.pulumi("up", "--yes", "--skip-preview", enter=enter)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
