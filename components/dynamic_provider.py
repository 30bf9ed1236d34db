"""Shared by all dynamic providers: setting up their process, the engine, and simulation."""

import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pulumi
from docker import DockerClient
from docker.errors import DockerException
from pulumi import dynamic

from talos_registry_cache.engine import lock, selection, supported
from talos_registry_cache.engine.selection import Selection, SelectionError
from talos_registry_cache.errors import ReportedError

from . import apart

SIMULATE = "TALOS_REGISTRY_CACHE_SIMULATE"
"""The environment variable that, set to `1`, simulates clusters and image sets."""

_FORMAT_EXC = traceback.format_exc


class EngineError(pulumi.RunError):
    """The container engine does not answer, or does not do its part in time."""


def is_simulated() -> bool:
    """Whether clusters and image sets exist in the state only: no node boots, nothing is pulled.

    The preview of a pull request needs a state to compare with, on a machine that cannot create
    these.
    """
    return os.environ.get(SIMULATE) == "1"


def prepare(request: dynamic.ConfigureRequest) -> None:
    """Set up a provider's process.

    It uses the engine that the Docker provider is configured with. Pulumi shows the traceback of
    every error that a provider raises; errors that the user can fix are reduced to their message.
    Ctrl-C interrupts the work of `apart`.

    Args:
        request: the configuration that Pulumi passes to the provider.
    """
    if host := request.config.get("docker:host"):
        os.environ["DOCKER_HOST"] = str(host)
    traceback.format_exc = _format_exc
    # The host's own method does nothing, and is bound already: only its code can be replaced.
    if servicer := getattr(sys.modules["__main__"], "DynamicResourceProviderServicer", None):
        servicer.Cancel.__code__ = _cancel.__code__
        servicer.Cancel.__defaults__ = (apart.cancel,)


@contextmanager
def engine() -> Iterator[DockerClient]:
    """A client of the container engine.

    Raises:
        EngineError: it does not answer.
    """
    client = connect()
    try:
        yield client
    finally:
        client.close()


def connect(host: str | None = None) -> DockerClient:
    """A client of the engine that Pulumi's Docker provider uses.

    The provider does not follow Docker contexts as the docker CLI does: it ignores `docker context
    use`, and prefers DOCKER_CONTEXT to DOCKER_HOST. A program cannot change that.

    Args:
        host: the configuration key `docker:host`, which overrides the environment.

    Raises:
        EngineError: the engine does not answer or is on another machine, or a Docker context
            selects it.
    """
    if host:
        os.environ["DOCKER_HOST"] = host
    try:
        selected = selection.select()
        if selected.is_context or os.environ.get("DOCKER_CONTEXT"):
            raise EngineError(_advice(selected))
        if problem := supported.why_not_at(selected.host):
            raise EngineError(problem)
        selected.export()
        return DockerClient.from_env()
    except (DockerException, SelectionError) as error:
        raise EngineError(f"the container engine does not answer: {error}") from error


def alone(engine: DockerClient, stack: str) -> AbstractContextManager[None]:
    """Lock the storages of a stack against `cachectl` and other updates.

    Raises:
        LockError: the lock cannot be taken.
    """
    waiting = f"waiting for another process that works on the caches of {stack}"
    return lock.held(engine, stack, lambda: print(waiting, flush=True))  # noqa: T201


def _advice(selected: Selection) -> str:
    variables = " ".join(
        f"{name}={value}"
        for name, value in selected.variables().items()
        if value or os.environ.get(name)
    )
    return (
        "Pulumi's Docker provider would use another engine than the docker CLI, which uses "
        f"{selected.source}: run `make up`, or `export {variables}`"
    )


def _cancel(
    self: object,  # noqa: ARG001 - as there
    request: object,  # noqa: ARG001 - as there
    context: object,  # noqa: ARG001 - as there
    cancel: Callable[[], None],
) -> object:
    """Handle Ctrl-C, in place of `Cancel` of the host, with whose globals this runs."""
    from google.protobuf import empty_pb2  # type: ignore[import-untyped] # noqa: PLC0415 - see above

    cancel()
    return empty_pb2.Empty()


def _format_exc(limit: int | None = None, chain: bool = True) -> str:  # noqa: FBT001, FBT002
    """Format the error that is being handled, in place of `traceback.format_exc`."""
    error = sys.exception()
    is_plain = isinstance(error, EngineError | ReportedError)
    return str(error) if is_plain else _FORMAT_EXC(limit, chain)
