"""Prometheus in the network of a stack, with the files in monitoring/."""

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

from talos_registry_cache.cli.commands import exporter
from tests.integration.support import processes
from tests.integration.support.polling import eventually
from tests.integration.support.pulling import pulling
from tests.integration.support.stack import ROOT, CacheStack

MONITORING = ROOT / "monitoring"
PROGRAM = "prometheus"
OFFICIAL_IMAGE = "prom/prometheus"
PORT = 9090
NOBODY = 65534
# As in the official image, so that the same command line starts either.
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
# Values for Grafana's variables.
RATE_INTERVAL, RANGE = "10s", "2m"
# increase() extrapolates to the ends of the range, and tests have few samples.
EXTRAPOLATED = 0.25


@dataclass(frozen=True, slots=True)
class Prometheus:
    """A running Prometheus.

    Attributes:
        url: its URL on this machine.
        stack: the stack to ask for; it may discover others.
    """

    url: str
    stack: str

    def query(self, expression: str) -> Sequence[float]:
        """The current value of each series of an expression."""
        return [float(series["value"][1]) for series in self._query(expression)]

    def up(self) -> Mapping[tuple[str, str], str]:
        """The addresses of the stack's caches that are up, by upstream and node."""
        found = [one["metric"] for one in self._query(f'up{{stack="{self.stack}"}} == 1')]
        # The name of a node that has just come back may not be known yet.
        return {
            (labels["upstream"], labels.get("node", "")): labels["instance"] for labels in found
        }

    def without_numbers(self, expressions: Mapping[str, str]) -> list[str]:
        """The names of the expressions without a finite value."""
        numbers = {name: self.query(expression) for name, expression in expressions.items()}
        return [name for name, found in numbers.items() if not any(map(math.isfinite, found))]

    def assert_counts_pulls(
        self,
        expressions: Mapping[str, str],
        pull: Callable[[], object],
        size: int,
        within_s: float,
    ) -> None:
        """Pull a cached image repeatedly until the dashboard shows the right numbers.

        Args:
            expressions: the dashboard's expressions.
            pull: pulls an image that was pulled once before.
            size: the size of the image's blobs.
            within_s: time limit of each step.
        """
        with pulling(pull) as pulls:
            eventually(
                lambda: self.without_numbers(expressions) == [],
                within_s=within_s,
                what="every expression has a value",
            )
        assert pulls.failures == []
        served = (1 + pulls.done) * size
        wanted = {"Served": served, "Fetched": size, "Saved": served - size}
        eventually(
            lambda: all(
                self.query(expressions[name]) == _about(is_) for name, is_ in wanted.items()
            ),
            within_s=within_s,
            what=f"the dashboard shows {wanted}",
        )

    def alerts(self) -> set[tuple[str, str]]:
        """Name and upstream of each pending or firing alert of the stack."""
        found = [one["labels"] for one in self.ask("alerts")["alerts"]]
        ours = [labels for labels in found if labels["stack"] == self.stack]
        return {(labels["alertname"], labels["upstream"]) for labels in ours}

    def ask(self, what: str, **parameters: str) -> Any:
        """Call its HTTP API."""
        answer = httpx2.get(
            f"{self.url}/api/v1/{what}", params=parameters, trust_env=False, timeout=ASKED_FOR_S
        )
        assert answer.is_success, answer.text
        return answer.json()["data"]

    def _query(self, expression: str) -> Sequence[Mapping[str, Any]]:
        return list(self.ask("query", query=expression)["result"])

    def is_ready(self) -> bool:
        """Whether it has loaded its configuration and answers."""
        try:
            return httpx2.get(f"{self.url}/-/ready", trust_env=False).is_success
        except httpx2.TransportError:
            return False


@contextmanager
def running(
    folder: Path,
    configuration: str,
    stack: CacheStack,
    *,
    address: str,
    port: int,
    engine_host: str,
    exporter_address: str = exporter.ADDRESS,
) -> Iterator[Prometheus]:
    """Run a Prometheus as docs/metrics.md does, and remove it at the end.

    Args:
        folder: an empty folder for its files.
        configuration: the configuration file in monitoring/.
        stack: the stack whose network it joins.
        address: an address of the engine's machine, to reach it at.
        port: the port there.
        engine_host: the engine; its socket is handed to Prometheus.
        exporter_address: where `cachectl exporter` listens.
    """
    name = f"it-prometheus-{secrets.token_hex(4)}"
    docker = ("docker", "--host", engine_host)
    socket = Path(engine_host.removeprefix("unix://"))
    try:
        install(folder.parent, engine_host, name)
        for file in MONITORING.iterdir():
            text = file.read_text().replace(": 15s", ": 1s")
            (folder / file.name).write_text(text.replace(exporter.ADDRESS, exporter_address))
        processes.run(
            *docker, "run", "--detach", "--name", name, "--network", stack.prefix,
            "--volume", f"{folder}:/etc/prometheus:ro",
            "--volume", f"{socket}:/var/run/docker.sock",
            "--group-add", str(socket.stat().st_gid),
            "--publish", f"{address}:{port}:{PORT}",
            name, f"--config.file=/etc/prometheus/{configuration}",
            "--storage.tsdb.path=/prometheus",
        )  # fmt: skip
        made = Prometheus(f"http://{address}:{port}", stack.name)
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
    """Import an image of Prometheus into an engine, by way of a temporary file in a folder."""
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


def dashboard(stack: str) -> Mapping[str, str]:
    """The dashboard's expressions as Grafana sends them, for all upstreams and nodes of a stack.

    The key is the title of the panel; for lines, their legend follows after a colon.
    """
    file = MONITORING / "dashboard.json"
    panels: Sequence[Mapping[str, Any]] = json.loads(file.read_text())["panels"]
    return {
        _name(panel["title"], target["legendFormat"]): _filled(target["expr"], stack)
        for panel in panels
        for target in panel["targets"]
    }


def _about(size: float) -> Any:
    """Equals a single value, within the precision of increase()."""
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
