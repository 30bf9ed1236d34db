"""Prometheus in the network of a stack, with what `cachectl metrics` has written."""

import json
import math
import secrets
import shutil
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.integration.support import processes
from tests.integration.support.polling import eventually
from tests.integration.support.pulling import pulling

PROGRAM = "prometheus"
OFFICIAL_IMAGE = "prom/prometheus"
PORT = 9090
NOBODY = 65534
# The image is as the official one, so that the same command line starts either.
CHANGES = (
    f"USER {NOBODY}",
    "WORKDIR /prometheus",
    'ENTRYPOINT ["/bin/prometheus"]',
    'CMD ["--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/prometheus"]',
    "VOLUME /prometheus",
)
STARTS_WITHIN_S = 60
ASKED_FOR_S = 60
REMOVED_WITHIN_S = 60
# What Grafana puts in for its own variables.
RATE_INTERVAL, RANGE = "10s", "2m"
# An increase is taken on to where no sample was, and those of tests are few.
EXTRAPOLATED = 0.25


@dataclass(frozen=True, slots=True)
class Prometheus:
    """A Prometheus that runs.

    Attributes:
        url: where this machine reaches it.
    """

    url: str

    def query(self, expression: str) -> Sequence[float]:
        """What an expression comes to now: a number of each series."""
        return [float(series["value"][1]) for series in self._query(expression)]

    def nodes_up(self) -> Mapping[str, set[str]]:
        """The nodes that answer, by upstream."""
        nodes: dict[str, set[str]] = {}
        for series in self._query("up == 1"):
            labels = series["metric"]
            nodes.setdefault(labels["upstream"], set()).add(labels["node"])
        return nodes

    def without_numbers(self, expressions: Mapping[str, str]) -> list[str]:
        """The names of the expressions that come to nothing, or to no number."""
        numbers = {name: self.query(expression) for name, expression in expressions.items()}
        return [name for name, found in numbers.items() if not any(map(math.isfinite, found))]

    def assert_counts_pulls(
        self,
        expressions: Mapping[str, str],
        pull: Callable[[], object],
        size: int,
        within_s: float,
    ) -> None:
        """Pull again and again what was pulled once, until all expressions show it as it was.

        Args:
            expressions: those of a dashboard.
            pull: pulls what is cached.
            size: how many bytes of blobs that has.
            within_s: how long each step may take.
        """
        with pulling(pull) as pulls:
            eventually(
                lambda: self.without_numbers(expressions) == [],
                within_s=within_s,
                what="all has numbers",
            )
        assert pulls.failures == []
        served = (1 + pulls.done) * size
        wanted = {"Served": served, "Fetched": size, "Saved": served - size}
        eventually(
            lambda: all(
                self.query(expressions[name]) == _about(is_) for name, is_ in wanted.items()
            ),
            within_s=within_s,
            what=f"it shows {wanted}",
        )

    def alerts(self) -> set[tuple[str, str]]:
        """The alerts that are pending or firing: name and upstream of each."""
        found = self.ask("alerts")["alerts"]
        return {(one["labels"]["alertname"], one["labels"]["upstream"]) for one in found}

    def ask(self, what: str, **parameters: str) -> Any:
        """Ask its HTTP API."""
        answer = httpx2.get(
            f"{self.url}/api/v1/{what}", params=parameters, trust_env=False, timeout=ASKED_FOR_S
        )
        assert answer.is_success, answer.text
        return answer.json()["data"]

    def _query(self, expression: str) -> Sequence[Mapping[str, Any]]:
        return list(self.ask("query", query=expression)["result"])

    def is_ready(self) -> bool:
        """Whether it has taken its configuration, and answers."""
        try:
            return httpx2.get(f"{self.url}/-/ready", trust_env=False).is_success
        except httpx2.TransportError:
            return False


@contextmanager
def running(
    folder: Path, network: str, address: str, port: int, engine_host: str
) -> Iterator[Prometheus]:
    """Run a Prometheus, and remove it at the end.

    Args:
        folder: what `cachectl metrics` has written.
        network: the network that it is in.
        address: an address of the engine's machine, at which it is reached.
        port: the port there.
        engine_host: the engine.
    """
    name = f"it-prometheus-{secrets.token_hex(4)}"
    docker = ("docker", "--host", engine_host)
    try:
        install(folder.parent, engine_host, name)
        processes.run(
            *docker, "run", "--detach", "--name", name, "--network", network,
            "--volume", f"{folder}:/etc/prometheus:ro",
            "--publish", f"{address}:{port}:{PORT}",
            name,
        )  # fmt: skip
        made = Prometheus(f"http://{address}:{port}")
        try:
            eventually(made.is_ready, within_s=STARTS_WITHIN_S, what="Prometheus is ready")
        except TimeoutError as error:
            said = processes.finish([*docker, "logs", name], within_s=REMOVED_WITHIN_S)
            raise AssertionError(said.stderr) from error
        yield made
    finally:
        for remove in (("rm", "--force", "--volumes"), ("image", "rm")):
            processes.finish([*docker, *remove, name], within_s=REMOVED_WITHIN_S)


def install(folder: Path, engine_host: str, image: str) -> None:
    """Give an engine an image of it; what that is made from is in a folder for a moment."""
    program = shutil.which(PROGRAM)
    assert program, f"{PROGRAM} is not on PATH; run the tests by `make test`"
    archive = folder / "prometheus.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(program, "bin/prometheus")
        data = tarfile.TarInfo("prometheus")
        data.type, data.mode, data.uid = tarfile.DIRTYPE, 0o755, NOBODY
        tar.addfile(data)
    changes = [word for change in CHANGES for word in ("--change", change)]
    processes.run("docker", "--host", engine_host, "import", *changes, archive, image)
    archive.unlink()


def expressions(file: Path, stack: str) -> Mapping[str, str]:
    """Every expression of a dashboard, as Grafana asks it for all nodes.

    The name of each is that of its panel, and of a line also its legend.
    """
    panels: Sequence[Mapping[str, Any]] = json.loads(file.read_text())["panels"]
    return {
        _name(panel["title"], target["legendFormat"]): _filled(target["expr"], stack)
        for panel in panels
        for target in panel["targets"]
    }


def _about(size: float) -> Any:
    """What equals the one number that an expression comes to, as far as an increase is exact."""
    return pytest.approx([size], rel=EXTRAPOLATED)


def _name(panel: str, legend: str) -> str:
    return panel if legend == panel else f"{panel}: {legend}"


def _filled(expression: str, stack: str) -> str:
    for variable, value in {
        "$__rate_interval": RATE_INTERVAL,
        "$__range": RANGE,
        "$stack": stack,
        "$upstream": ".+",
        "$node": ".+",
    }.items():
        expression = expression.replace(variable, value)
    assert "$" not in expression
    return expression
