"""How a team's caches scale with their nodes, and what a morning of twenty workstations costs.

Run it by `make bench`. It makes hosts in network namespaces, in a Swarm, with an object store, and
workstations on this machine's engine; it removes them all. It writes docs/benchmarks-team.md with a
picture, and takes about five minutes.
"""

import argparse
import base64
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic

import docker
from docker import DockerClient
from pulumi.automation import CommandError

from benchmarks.support import nodes, reading, session, table, team_findings, upstream, workstations
from benchmarks.support.image_set import REFERENCES, REGISTRIES
from benchmarks.support.nodes import Start
from benchmarks.support.pulumi_stack import ROOT
from benchmarks.support.reading import Client
from benchmarks.support.session import CannotRunError
from benchmarks.support.team_findings import Morning, Scaling, TeamFindings
from tests.integration.support import network, team, team_bed
from tests.integration.support.processes import CommandFailedError
from tests.integration.support.team import READER, Team
from toolchain.report import say, step

REGISTRY = "registry.example"
HOSTS = 3
CLIENTS_OF_A_NODE = 2
ROUNDS = 3
READ_S = 4
NODE_MBIT = 100
WARM_SCALE = 0.3

WORKSTATIONS = 20
TEAM_NODES = 2
MORNING_SCALE = 0.06
INTERNET_MBIT = 100
JITTER_S = 5
SPREAD_S = 40

UNLIMITED_MBIT = 10_000
WITHIN_S = 1800


def main(arguments: Sequence[str]) -> int:
    """Measure and write; the exit code is 0 if that was possible."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--into", type=Path, default=ROOT / "docs", help="where the results go")
    options = parser.parse_args(arguments)
    return session.run(lambda: _bench(options.into), within_s=WITHIN_S)


def _bench(folder: Path) -> None:
    session.need([*upstream.TOOLS, "pulumi"])
    if reason := team_bed.why_impossible():
        raise CannotRunError(reason)
    started = monotonic()
    findings = TeamFindings(
        day=datetime.now(UTC).date(),
        cores=os.cpu_count() or 1,
        load=os.getloadavg()[0],
        workstations=WORKSTATIONS,
        nodes=TEAM_NODES,
        mbit=INTERNET_MBIT,
    )
    try:
        with tempfile.TemporaryDirectory() as files, _team(Path(files)) as up:
            _scaling(up, findings)
            _mornings(Path(files), up, findings)
    except (CommandFailedError, CommandError) as error:
        raise CannotRunError(str(error)) from error
    findings.minutes = (monotonic() - started) / 60
    findings.write(folder)


@contextmanager
def _team(folder: Path) -> Iterator[Team]:
    say(f"==> {HOSTS} hosts in a Swarm, an object store, and a team's stack on them")
    bed_folder = folder / "bed"
    bed_folder.mkdir()
    with team_bed.running(bed_folder, hosts=HOSTS) as bed:
        # The upstream itself, and not the front before it, which is no faster than Python.
        direct = {REGISTRY: {"port": team.PORT, "remoteUrl": bed.upstream.url}}
        with team.running(folder, bed, upstreams=direct) as up:
            yield up


def _scaling(up: Team, findings: TeamFindings) -> None:
    """What one, two and three nodes serve, with links that are limited and not."""
    paths = list(upstream.fill(up.bed.upstream.url, WARM_SCALE))
    with step("the caches are warmed"):
        _pull(up, paths)
    ca = up.stack.outputs()["ca"]
    for mbit in (NODE_MBIT, None):
        _limit(up, mbit or UNLIMITED_MBIT)
        scaling = Scaling(mbit)
        findings.scaling.append(scaling)
        say(f"==> warm, links {f'of {mbit} Mbit/s' if mbit else 'not limited'}")
        for number in range(ROUNDS * HOSTS):
            count = number % HOSTS + 1
            rate = reading.read(_clients(up, paths, ca, count), READ_S, _serving(up))
            scaling.rates.setdefault(count, []).append(rate)
            served = f"{rate.bytes_per_s / table.MB:.0f} MB/s"
            say(f"    {table.count(count)}: {served}, {rate.busy.machine:.2f} cores busy")


def _pull(up: Team, paths: Sequence[str]) -> None:
    with up.client() as http:
        for path in paths:
            with http.stream("GET", team.endpoint(up.bed.manager) + path) as answer:
                for _ in answer.raise_for_status().iter_raw():
                    pass
    up.settled()


def _limit(up: Team, mbit: int) -> None:
    for host in up.bed.hosts:
        host.link.limit(mbit)


def _clients(up: Team, paths: Sequence[str], ca: str, count: int) -> list[Client]:
    """Clients of the first nodes; each begins with another blob."""
    credentials = base64.b64encode(f"{READER}:{up.password}".encode()).decode()
    hosts = [*up.bed.hosts[:count]] * CLIENTS_OF_A_NODE
    begins = [len(paths) * number // len(hosts) for number in range(len(hosts))]
    return [
        Client(team.endpoint(host), [*paths[at:], *paths[:at]], ca, f"Basic {credentials}")
        for host, at in zip(hosts, begins, strict=True)
    ]


def _serving(up: Team) -> Mapping[str, set[int]]:
    hosts = [network.pids(host.name) for host in up.bed.hosts]
    return {
        team_findings.CACHES: set().union(*hosts),
        team_findings.STORE: network.pids(up.bed.store.link.namespace),
    }


def _mornings(folder: Path, up: Team, findings: TeamFindings) -> None:
    """What workstations cost the internet that have nothing of a new set of images."""
    jitter, spread = f"within {JITTER_S} s", f"within {SPREAD_S} s"
    with _engine() as engine:
        say(f"==> {WORKSTATIONS} workstations without a team")
        with workstations.on_their_own(folder, engine, up.bed.upstream.url, WORKSTATIONS) as urls:
            _morning(up, findings, urls, f"no team, {jitter}", JITTER_S)
        say(f"==> {WORKSTATIONS} workstations of a team")
        with workstations.of_team(folder, engine, up, TEAM_NODES, WORKSTATIONS) as urls:
            _morning(up, findings, urls, "two tiers, warmed, all at once", 0, is_warmed=True)
            _morning(up, findings, urls, f"two tiers, {spread}", SPREAD_S)
            _morning(up, findings, urls, f"two tiers, {jitter}", JITTER_S)
            _morning(up, findings, urls, "two tiers, all at once", 0)


def _morning(
    up: Team,
    findings: TeamFindings,
    urls: Sequence[str],
    title: str,
    within_s: float,
    *,
    is_warmed: bool = False,
) -> None:
    """Let workstations start within so many seconds, with images that nobody has seen before."""
    source = up.bed.upstream
    size = upstream.copy_size(upstream.fill(source.url, MORNING_SCALE))
    findings.copy_size = size
    source.limit(INTERNET_MBIT)
    before = source.sent()
    if is_warmed:
        _warm(up)
    every_s = within_s / len(urls)
    boot = nodes.boot_each(
        [Start(dict.fromkeys(REGISTRIES, url), every_s * n) for n, url in enumerate(urls)]
    )
    copies = (source.sent() - before) / size
    source.limit(UNLIMITED_MBIT)
    findings.mornings.append(Morning(title, copies, boot.seconds, is_warmed))
    say(f"    {title}: {copies:.2f} copies, {boot.seconds:.1f} s")


def _warm(up: Team) -> None:
    """Bring the images in by the team's stack."""
    names = [text.partition("/")[2] for text in REFERENCES]
    up.stack.configure({"references": [f"{REGISTRY}/{name}" for name in names]}, key="images")
    with step("the team's stack brings the images in"):
        # A blob that images share goes through a registry on the manager's own loopback.
        enter = up.bed.manager.engine.enter
        up.stack.pulumi("up", "--yes", "--skip-preview", enter=enter)


@contextmanager
def _engine() -> Iterator[DockerClient]:
    client = docker.from_env(timeout=60)
    try:
        yield client
    finally:
        client.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
