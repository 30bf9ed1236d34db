"""Runs a stack for many rounds with kills in between, and reports what was lost or left behind.

Run by `make soak`. In each round, tags move at the upstream, `pulumi up` warms some of the images,
four nodes pull all of them while a registry, a front or the engine is killed, and pull them again
once everything runs; then `cachectl verify` proves the storage, and `pulumi destroy` removes the
stack, whose volumes stay. It has an engine of its own, and no network is needed. A table is written
to build/, and everything that was created is removed. The exit code is 1 if anything was lost.
"""

import argparse
import json
import os
import random
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from time import monotonic
from typing import Any

from docker import DockerClient

from benchmarks.support import session, table
from benchmarks.support.image_set import Image, image
from benchmarks.support.session import CannotRunError
from tests.integration.support import belongings, host, private_engine, processes
from tests.integration.support.cachectl import Cachectl
from tests.integration.support.polling import eventually
from tests.integration.support.private_engine import PrivateEngine
from tests.integration.support.processes import CommandFailedError
from tests.integration.support.stack import CacheStack, stack, upstreams
from tests.integration.support.upstream import IMAGE
from toolchain.report import say

ROUNDS = 24
WITHIN_S = 2 * 3600
REGISTRIES = ("docker.io", "quay.io")
TAGS = 6
NODES = 4
LAYERS_MB = (3.0, 1.0, 0.2)
# Of each cache; all tags together have 25 MB.
MAX_SIZE = "60m"
KILLED = ("nothing", "a registry", "a front", "the engine")
HEALTHY_WITHIN_S = 60
PULLED_WITHIN_S = 60


@dataclass(frozen=True, slots=True)
class Tag:
    """A tag at the upstream.

    Attributes:
        name: its repository and tag.
        digests: the digests of its images so far.
    """

    name: str
    digests: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Round:
    """The result of a round.

    Attributes:
        killed: what was killed.
        seconds: how long it took.
        interrupted: how many pulls failed because of the kill.
        memory: the memory of all caches, in bytes.
        disk: the size of their volumes, in bytes.
        lost: pulls that failed or got wrong content afterwards, and failures of the proof.
        left: what was left on the engine or in the temporary folder after `destroy`.
    """

    killed: str
    seconds: float
    interrupted: int
    memory: int
    disk: int
    lost: Sequence[str]
    left: Sequence[str]


class Soak:
    """A stack, its engine and its upstream."""

    def __init__(
        self, engine: PrivateEngine, client: DockerClient, port: int, made: CacheStack, folder: Path
    ) -> None:
        self._engine, self._client, self._port = engine, client, port
        self._stack, self._folder = made, folder
        self._tags = [Tag(f"team/app{number}:1") for number in range(TAGS)]
        self._cachectl = Cachectl(made.name, folder, engine.enter)
        self._cachectl.env |= {"DOCKER_HOST": engine.host, "TMPDIR": str(folder)}
        for tag in self._tags:
            self._move(tag)

    def round(self, killed: str, chance: random.Random) -> Round:
        """Run a round."""
        started = monotonic()
        for tag in chance.sample(self._tags, 2):
            self._move(tag)
        declared = [
            f"{registry}/{tag.name}"
            for registry in REGISTRIES
            for tag in chance.sample(self._tags, TAGS // 2)
        ]
        self._stack.configure({"references": declared}, "images")
        self._stack.up()
        interrupted = self._pull_during(lambda: self._kill(killed, chance))
        eventually(
            lambda: self._stack.healthy() == {*REGISTRIES},
            within_s=HEALTHY_WITHIN_S,
            what="the caches are healthy",
        )
        lost = [problem for problem in self._pull_all() if problem]
        proof = self._cachectl("verify")
        if proof.code:
            lost.append(f"verify: {proof.code}\n{proof.out}{proof.err}")
        memory, disk = self._memory(), self._disk()
        self._stack.destroy()
        took = monotonic() - started
        return Round(killed, took, interrupted, memory, disk, lost, self._left())

    def _move(self, tag: Tag) -> None:
        """Push a new image under a tag."""
        made = image(f"{host.LOOPBACK}/{tag.name}", LAYERS_MB)
        tag.digests.add(made.index.digest)
        with tempfile.TemporaryDirectory(dir=self._folder) as layout:
            _write_layout(made, Path(layout))
            self._skopeo(
                "--dest-tls-verify=false", f"oci:{layout}",
                f"docker://{host.LOOPBACK}:{self._port}/{tag.name}",
            )  # fmt: skip

    def _pull_during(self, kill: Callable[[], None]) -> int:
        """Let all nodes pull, and kill after the first pull; returns how many pulls failed."""
        with ThreadPoolExecutor(NODES) as pool:
            pulls = [pool.submit(self._pull, *one) for one in self._pulls()]
            wait(pulls, return_when=FIRST_COMPLETED)
            kill()
            return sum(bool(pull.result()) for pull in pulls)

    def _pull_all(self) -> list[str]:
        with ThreadPoolExecutor(NODES) as pool:
            return list(pool.map(lambda one: self._pull(*one), self._pulls()))

    def _pulls(self) -> list[tuple[str, Tag]]:
        endpoints = {
            registry: self._stack.endpoint(registry).partition("//")[2] for registry in REGISTRIES
        }
        each = [(endpoint, tag) for endpoint in endpoints.values() for tag in self._tags]
        return each * NODES

    def _pull(self, endpoint: str, tag: Tag) -> str:
        """Pull an image as a client that checks every digest; returns what went wrong."""
        with tempfile.TemporaryDirectory(dir=self._folder) as target:
            digest = Path(target, "digest")
            try:
                self._skopeo(
                    "--src-tls-verify=false", "--digestfile", str(digest),
                    f"docker://{endpoint}/{tag.name}", f"dir:{target}/image",
                )  # fmt: skip
            except CommandFailedError as error:
                return f"{tag.name}: {error}"
            found = digest.read_text().strip()
        return "" if found in tag.digests else f"{tag.name} has the digest {found}"

    def _skopeo(self, *arguments: str) -> None:
        command = (
            *self._engine.enter,
            "skopeo",
            "copy",
            "--quiet",
            "--all",
            "--preserve-digests",
            *arguments,
        )
        processes.run(*command, within_s=PULLED_WITHIN_S)

    def _kill(self, what: str, chance: random.Random) -> None:
        find = {"a registry": belongings.registries, "a front": belongings.caches}.get(what)
        if find:
            container = find(self._client, self._stack.name)[chance.choice(REGISTRIES)]
            # The engine would not start it again if it had killed it itself.
            os.kill(container.attrs["State"]["Pid"], signal.SIGKILL)
        elif what == "the engine":
            self._engine.kill()
            self._engine.start()

    def _memory(self) -> int:
        running = belongings.containers(self._client, self._stack.name)
        stats: list[Any] = [one.stats(stream=False) for one in running if one.status == "running"]
        return sum(_used(one["memory_stats"]) for one in stats)

    def _disk(self) -> int:
        volumes = self._client.df()["Volumes"]
        names = self._stack.belongings().volumes
        return sum(one["UsageData"]["Size"] for one in volumes if one["Name"] in names)

    def _left(self) -> list[str]:
        """What is left after `destroy`, apart from the volumes of images and the stack's files."""
        belonging = self._stack.belongings()
        kept = {f"{self._stack.prefix}-{registry}" for registry in REGISTRIES}
        return [
            *belonging.containers,
            *belonging.networks,
            *(belonging.volumes - kept),
            *(str(one.name) for one in self._folder.iterdir() if one.name.startswith("tmp")),
        ]


def _used(memory: Mapping[str, Any]) -> int:
    """The memory of a container without cached files, as `docker stats` shows it."""
    details = memory.get("stats", {})
    # With version 1 and version 2 of control groups.
    cached = details.get("total_inactive_file", details.get("inactive_file", 0))
    return int(memory.get("usage", 0)) - int(cached)


def _write_layout(made: Image, folder: Path) -> None:
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    for content in (*made.blobs, made.manifest, made.index):
        (blobs / content.digest.removeprefix("sha256:")).write_bytes(content.content)
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    entry = made.index.described(made.index.media_type)
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))


def main(arguments: Sequence[str]) -> int:
    """Run the rounds; returns the exit code."""
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="number of rounds")
    parser.add_argument("--seed", type=int, default=0, help="what is chosen by chance")
    parser.add_argument("--into", type=Path, default=table.BUILD, help="folder for the results")
    options = parser.parse_args(arguments)
    rounds: list[Round] = []
    code = session.run(lambda: rounds.extend(_rounds(options)), within_s=WITHIN_S)
    is_lost = any(one.lost or one.left for one in rounds)
    return code or int(is_lost or len(rounds) < options.rounds)


def _rounds(options: argparse.Namespace) -> list[Round]:
    if reason := private_engine.why_impossible():
        raise CannotRunError(reason)
    chance = random.Random(options.seed)  # noqa: S311 - not a secret
    rounds = []
    with _soak() as soak:
        for number in range(options.rounds):
            one = soak.round(KILLED[number % len(KILLED)], chance)
            rounds.append(one)
            say(f"==> round {number + 1} of {options.rounds}: {_line(one)}")
            for problem in (*one.lost, *one.left):
                say(f"    {problem}")
    table.write("soak.md", _table(rounds), options.into)
    return rounds


@contextmanager
def _soak() -> Iterator[Soak]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("engine", "stack"):
            (folder / part).mkdir()
        with private_engine.running(folder / "engine") as engine, engine.client() as client:
            port = host.free_port()
            client.containers.run(
                IMAGE,
                detach=True,
                ports={"5000/tcp": port},
                restart_policy={"Name": "always"},
                environment={"OTEL_TRACES_EXPORTER": "none"},
            )
            gateway = host.bridge_gateway(client)
            settings = {
                "mirrorHost": gateway,
                "front": {"tagFreshness": "1s"},
                "retention": {"maxSize": MAX_SIZE},
                "upstreams": upstreams(f"http://{gateway}:{port}", *REGISTRIES),
            }
            with stack(
                folder, client, settings, engine_host=engine.host, enter=engine.enter
            ) as made:
                yield Soak(engine, client, port, made, folder / "stack")


def _line(one: Round) -> str:
    return (
        f"killed {one.killed}, {one.interrupted} pulls interrupted, {len(one.lost)} lost, "
        f"{len(one.left)} left behind, memory {table.megabytes(one.memory)}, "
        f"disk {table.megabytes(one.disk)}, {table.seconds(one.seconds)}"
    )


def _table(rounds: Sequence[Round]) -> str:
    third = max(1, len(rounds) // 3)
    first, last = rounds[:third], rounds[-third:]
    rows = [
        ("pulls that a kill interrupted", _sum(first, "interrupted"), _sum(last, "interrupted")),
        ("pulls or proofs that failed", _count(first, "lost"), _count(last, "lost")),
        ("left behind after destroy", _count(first, "left"), _count(last, "left")),
        ("memory of the caches, median", _median(first, "memory"), _median(last, "memory")),
        ("size of their volumes, median", _median(first, "disk"), _median(last, "disk")),
    ]
    kills = ", ".join(f"{what}: {[one.killed for one in rounds].count(what)}" for what in KILLED)
    return (
        f"{len(rounds)} rounds, {NODES} nodes, {TAGS} tags in {len(REGISTRIES)} caches of "
        f"{MAX_SIZE} each; two tags move in each round.\nKilled: {kills}. On {table.machine()}.\n\n"
        + table.markdown(["", f"first {third} rounds", f"last {third} rounds"], rows)
    )


def _sum(rounds: Sequence[Round], name: str) -> str:
    return str(sum(getattr(one, name) for one in rounds))


def _count(rounds: Sequence[Round], name: str) -> str:
    return str(sum(len(getattr(one, name)) for one in rounds))


def _median(rounds: Sequence[Round], name: str) -> str:
    return table.megabytes(median(getattr(one, name) for one in rounds))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
