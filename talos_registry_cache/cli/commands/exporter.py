"""cachectl exporter: serve Prometheus metrics of what clients pull."""

import math
import threading
import time
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer
from docker import DockerClient
from docker.errors import DockerException
from docker.models.containers import Container
from urllib3.exceptions import HTTPError

from talos_registry_cache.cli import caches, console, options, stack
from talos_registry_cache.cli.errors import CachectlError, UsageError
from talos_registry_cache.engine import labels
from talos_registry_cache.registry import pull_log, served_certificate

if TYPE_CHECKING:
    from talos_registry_cache.cli.front_metrics import FrontMetrics

ADDRESS = "127.0.0.1:9355"
LAST_PORT = 65535
# How often it looks for new fronts, and at the certificates.
EVERY_S = 3.0
CERTIFICATES_EVERY_S = 60.0


def exporter(
    *,
    listen: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS:PORT",
            help="Where to serve the metrics. Anyone who reaches it can read them.",
        ),
    ] = ADDRESS,
    stack_name: options.EveryStack = None,
) -> None:
    """Serve Prometheus metrics of the requests to the caches, until Ctrl-C or SIGTERM.

    Counts requests, failed requests, bytes and durations by stack, upstream and result: "hit" from
    the cache; "shared" from the fetch of another client; "stale" from the cache, with a tag past
    its freshness; "miss" from the registry; "-" for other requests. A request fails if it gets an
    error other than 401 and 404.

    Reads the logs of the caches' fronts from its own start on. New and replaced caches are included
    within seconds. Fronts on a Swarm are not counted.

    Also serves the time at which the certificate of each cache with TLS expires.

    Exit codes: 0 ended by Ctrl-C or SIGTERM, 1 failure, 2 wrong usage.
    """
    with stack.connected() as client:
        try:
            _run(client, listen, stack_name)
        except KeyboardInterrupt:
            # It is how this command ends.
            return


class Fronts:
    """The fronts on an engine, whose logs are counted while they run."""

    def __init__(
        self, client: DockerClient, metrics: "FrontMetrics", stack_name: str | None
    ) -> None:
        """Count the requests from now on.

        Args:
            client: the engine.
            metrics: counts the requests.
            stack_name: the stack; None for every stack.
        """
        self._client = client
        self._metrics = metrics
        self._filter = [labels.REGISTRY, *([f"{labels.STACK}={stack_name}"] if stack_name else [])]
        # The engine's clock, which also stamps the lines of logs.
        self._began = datetime.fromisoformat(client.info()["SystemTime"])
        # By the ID of the container; a container keeps its log when it is restarted.
        self._counted_until: dict[str, datetime] = {}
        self._threads: dict[str, threading.Thread] = {}

    def look(self) -> list[threading.Thread]:
        """Follow the log of every front that runs.

        Returns:
            The threads, one for each log. They end with the containers, or with the process.
        """
        running = self._client.containers.list(filters={"label": self._filter}, ignore_removed=True)
        for front in running:
            thread = self._threads.get(str(front.id))
            if thread is None or not thread.is_alive():
                thread = threading.Thread(target=self._count, args=(front,), daemon=True)
                self._threads[str(front.id)] = thread
                thread.start()
        return list(self._threads.values())

    def _count(self, front: Container) -> None:
        """Count the requests in a log after the last one that was counted."""
        place = front.labels[labels.STACK], front.labels[labels.UPSTREAM]
        since = self._counted_until.get(str(front.id), self._began)
        self._metrics.expect(*place)
        try:
            stream = front.logs(
                stream=True, follow=True, stderr=False, timestamps=True, since=since.timestamp()
            )
            for line in pull_log.lines(stream):
                stamp, _, logged = line.partition(" ")
                at = datetime.fromisoformat(stamp)
                if at > since:
                    self._counted_until[str(front.id)] = at
                    if pull := pull_log.parse(logged):
                        self._metrics.add(*place, pull)
        except (DockerException, HTTPError, OSError):
            # The container or the engine is gone. If it is back, the next look finds it.
            return


def expiries(client: DockerClient, stack_name: str | None) -> Mapping[tuple[str, str], datetime]:
    """When the certificates of caches with TLS expire, by stack and upstream.

    Args:
        client: the engine.
        stack_name: the stack; None for every stack.
    """
    urls = {
        (name, cache.registry): cache.endpoint
        for name, found in stack.every(client).items()
        for cache in found
        if cache.endpoint and stack_name in {None, name}
    }
    found = caches.at_once(client, served_certificate.expires, list(urls.values()))
    return {place: expiry for place, expiry in zip(urls, found, strict=True) if expiry}


def _run(client: DockerClient, listen: str, stack_name: str | None) -> None:
    # Not at the top: other commands start faster without this library.
    from talos_registry_cache.cli.front_metrics import FrontMetrics  # noqa: PLC0415 - see above

    metrics = FrontMetrics()
    fronts = Fronts(client, metrics, stack_name)
    _serve(metrics, listen)
    is_answering = True
    looked_at_certificates = -math.inf
    while True:
        try:
            fronts.look()
            if time.monotonic() - looked_at_certificates >= CERTIFICATES_EVERY_S:
                metrics.set_expiries(expiries(client, stack_name))
                looked_at_certificates = time.monotonic()
            is_answering = True
        except (DockerException, OSError) as error:
            if is_answering:
                console.say(f"the container engine does not answer: {error}; trying again")
            is_answering = False
        time.sleep(EVERY_S)


def _serve(metrics: "FrontMetrics", listen: str) -> None:
    from prometheus_client import start_http_server  # noqa: PLC0415 - see above

    host, _, port = listen.rpartition(":")
    if not (host and port.isdecimal() and int(port) <= LAST_PORT):
        raise UsageError(f"found --listen {listen}; allowed: ADDRESS:PORT, such as {ADDRESS}")
    try:
        start_http_server(int(port), host.strip("[]"), metrics.registry)
    except OSError as error:
        raise CachectlError(
            f"cannot listen on {listen}: {error.strerror}; choose another address with --listen"
        ) from error
    console.say(f"metrics are at http://{listen}/metrics")
