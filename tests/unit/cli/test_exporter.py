"""Prometheus metrics of the requests to fronts, from their logs."""

import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from docker.errors import NotFound
from typer.testing import CliRunner

from talos_registry_cache.cli import stack
from talos_registry_cache.cli.__main__ import app
from talos_registry_cache.cli.commands import exporter as command
from talos_registry_cache.cli.commands.exporter import Fronts
from talos_registry_cache.cli.errors import CachectlError, UsageError
from talos_registry_cache.cli.front_metrics import FrontMetrics
from talos_registry_cache.engine import labels
from talos_registry_cache.registry import served_certificate

BEGAN = "2026-11-27T18:30:00.5Z"
BLOB, MANIFEST, PING = "/v2/app/blobs/sha256:ab", "/v2/app/manifests/1", "/v2/"


def logged(second: int, result: str, path: str = BLOB, status: int = 200) -> str:
    """A line of a front's log as the engine stamps it; 1000 bytes in 0.2 s."""
    return (
        f"2026-11-27T18:30:{second:02}.123456789Z "
        f'10.5.0.2 - - [27/Nov/2026:18:30:{second:02} +0000] "GET {path} HTTP/1.1" '
        f'{status} 1000 "-" "containerd" 0.200 {result}\n'
    )


class Engine:
    """An engine with fronts, whose logs end as if they had stopped.

    Attributes:
        fronts: the logs, by the ID of the container.
        filters: the labels that were asked for last.
    """

    def __init__(self, **fronts: str) -> None:
        self.fronts = fronts
        self.filters: list[str] = []

    @property
    def containers(self) -> "Engine":
        return self

    def info(self) -> dict[str, str]:
        return {"SystemTime": BEGAN}

    def list(self, filters: dict[str, list[str]], **_: Any) -> list[Any]:
        self.filters = filters["label"]
        return [
            SimpleNamespace(
                id=name,
                labels={labels.STACK: "dev", labels.UPSTREAM: "docker.io"},
                logs=lambda name=name, **_: self._log(name),
            )
            for name in self.fronts
        ]

    def _log(self, name: str) -> Iterator[bytes]:
        if not self.fronts[name]:
            raise NotFound(name)
        yield self.fronts[name].encode()


class Exporter:
    """The counters of the fronts of an engine."""

    def __init__(self, engine: Any, stack_name: str | None = None) -> None:
        self._metrics = FrontMetrics()
        self._fronts = Fronts(engine, self._metrics, stack_name)

    def look(self) -> None:
        """Look for fronts, and read their logs to the end."""
        for thread in self._fronts.look():
            thread.join()

    def value(self, name: str, result: str) -> float | None:
        """The value of a series."""
        return self._metrics.registry.get_sample_value(
            name, {"stack": "dev", "upstream": "docker.io", "result": result}
        )

    def requests(self) -> dict[str, float | None]:
        """The requests by result, without those that are 0."""
        counted = {
            result: self.value("registry_cache_requests_total", result)
            for result in ("hit", "shared", "stale", "miss", "-")
        }
        return {result: number for result, number in counted.items() if number != 0}


def test_requests_bytes_and_durations_are_counted_by_result() -> None:
    exporter = Exporter(
        Engine(
            front=logged(1, "miss")
            + logged(2, "shared")
            + "2026-11-27T18:30:02.2Z 2026/11/27 18:30:02 [warn] 29#29: a client left\n"
            + logged(3, "stale", MANIFEST)
            + logged(4, "hit")
            + logged(5, "hit")
        )
    )

    exporter.look()

    assert exporter.requests() == {"hit": 2, "shared": 1, "stale": 1, "miss": 1}
    assert exporter.value("registry_cache_sent_bytes_total", "hit") == 2000
    assert exporter.value("registry_cache_request_duration_seconds_count", "hit") == 2
    assert exporter.value("registry_cache_request_duration_seconds_sum", "miss") == 0.2


@pytest.mark.parametrize(
    ("status", "failed"), [(200, 0), (401, 0), (404, 0), (403, 1), (429, 1), (499, 1), (502, 1)]
)
def test_a_missing_image_and_the_start_of_a_login_are_no_failures(status: int, failed: int) -> None:
    exporter = Exporter(Engine(front=logged(1, "-", PING, status)))

    exporter.look()

    assert exporter.value("registry_cache_failed_requests_total", "-") == failed


@pytest.mark.parametrize(("path", "status"), [(PING, 200), (MANIFEST, 401)])
def test_requests_that_get_no_content_have_no_result(path: str, status: int) -> None:
    exporter = Exporter(Engine(front=logged(1, "hit", path, status)))

    exporter.look()

    assert exporter.requests() == {"-": 1}


def test_every_series_starts_at_0() -> None:
    exporter = Exporter(Engine(front=""))

    exporter.look()

    assert exporter.requests() == {}
    assert exporter.value("registry_cache_failed_requests_total", "miss") == 0


def test_only_requests_since_the_start_are_counted() -> None:
    exporter = Exporter(Engine(front=logged(0, "hit") + logged(1, "miss")))

    exporter.look()

    assert exporter.requests() == {"miss": 1}


def test_the_log_of_a_front_that_was_restarted_is_counted_once() -> None:
    engine = Engine(front=logged(1, "miss"))
    exporter = Exporter(engine)

    exporter.look()
    engine.fronts["front"] += logged(2, "hit")
    exporter.look()
    exporter.look()

    assert exporter.requests() == {"miss": 1, "hit": 1}


def test_a_front_that_was_replaced_adds_to_the_counters_of_its_upstream() -> None:
    engine = Engine(old=logged(1, "miss"))
    exporter = Exporter(engine)

    exporter.look()
    engine.fronts = {"gone": "", "new": logged(1, "hit") + logged(2, "hit")}
    exporter.look()

    assert exporter.requests() == {"miss": 1, "hit": 2}


@pytest.mark.parametrize("name", [None, "dev"])
def test_one_stack_or_all_of_them_are_counted(name: str | None) -> None:
    engine = Engine()

    Exporter(engine, name).look()

    assert engine.filters == [labels.REGISTRY, *([f"{labels.STACK}={name}"] if name else [])]


# Certificates

EXPIRY = datetime(2027, 1, 1, tzinfo=UTC)
EXPIRY_METRIC = "registry_cache_certificate_expiry_timestamp_seconds"


@pytest.mark.parametrize(("name", "stacks"), [(None, {"dev", "team"}), ("team", {"team"})])
def test_the_expiry_of_caches_with_tls_is_read(
    name: str | None, stacks: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    secure, plain = (
        SimpleNamespace(registry=host, endpoint=url)
        for host, url in (("docker.io", "https://localhost:1"), ("quay.io", "http://localhost:2"))
    )
    found = {"dev": [secure, plain], "team": [secure]}
    monkeypatch.setattr(stack, "every", lambda _: found)
    monkeypatch.setattr(
        served_certificate, "expires", lambda url: EXPIRY if url == secure.endpoint else None
    )

    read = command.expiries(SimpleNamespace(), name)  # type: ignore[arg-type]

    assert read == {(one, "docker.io"): EXPIRY for one in stacks}


def test_a_cache_that_is_gone_has_no_expiry() -> None:
    metrics = FrontMetrics()
    labels = {"stack": "dev", "upstream": "docker.io"}

    metrics.set_expiries({("dev", "docker.io"): EXPIRY})
    assert metrics.registry.get_sample_value(EXPIRY_METRIC, labels) == EXPIRY.timestamp()
    metrics.set_expiries({})
    assert metrics.registry.get_sample_value(EXPIRY_METRIC, labels) is None


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], BaseException | None]:
    """Runs `cachectl exporter --listen`, and returns its error."""

    @contextmanager
    def connected() -> Iterator[Engine]:
        yield Engine()

    monkeypatch.setattr(stack, "connected", connected)
    return lambda listen: CliRunner().invoke(app, ["exporter", "--listen", listen]).exception


@pytest.mark.parametrize("listen", ["9355", ":9355", "127.0.0.1", "127.0.0.1:65536", "[::1]:x"])
def test_a_wrong_address_is_a_mistake(
    listen: str, run: Callable[[str], BaseException | None]
) -> None:
    error = run(listen)

    assert isinstance(error, UsageError)
    assert listen in str(error)


def test_a_port_in_use_is_named(run: Callable[[str], BaseException | None]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        listen = f"127.0.0.1:{other.getsockname()[1]}"
        error = run(listen)

    assert isinstance(error, CachectlError)
    assert f"cannot listen on {listen}: Address already in use" in str(error)


def test_other_commands_do_not_load_the_library_of_metrics() -> None:
    program = (
        "import sys, talos_registry_cache.cli.__main__\n"
        "sys.exit('prometheus_client' in sys.modules)"
    )

    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
