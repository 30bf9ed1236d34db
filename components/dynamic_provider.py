"""What the dynamic providers of this program have in common: their process, and its errors."""

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from docker import DockerClient
from docker.errors import DockerException
from pulumi import dynamic

SIMULATE = "TALOS_REGISTRY_CACHE_SIMULATE"
"""The environment variable that says, by `1`, that clusters and image sets are simulated."""

_FORMAT_EXC = traceback.format_exc
_plain: set[type[Exception]] = set()


class EngineError(Exception):
    """The container engine does not answer, or does not do its part in time."""


def is_simulated() -> bool:
    """Whether clusters and image sets are only said to be there: no node boots, nothing is pulled.

    So that the preview of a pull request has a state to compare with, on a machine that has neither
    the time nor the means to make it.
    """
    return os.environ.get(SIMULATE) == "1"


def prepare(request: dynamic.ConfigureRequest, *plain: type[Exception]) -> None:
    """Prepare the process of a provider.

    What it starts talks to the engine that the Docker provider is configured with. And Pulumi shows
    the traceback of whatever a provider raises: for what a person can put right, the message alone.

    Args:
        request: what Pulumi configures the provider with.
        plain: the errors that are shown without a traceback.
    """
    if host := request.config.get("docker:host"):
        os.environ["DOCKER_HOST"] = host
    _plain.update({EngineError, *plain})
    traceback.format_exc = _format_exc


@contextmanager
def engine() -> Iterator[DockerClient]:
    """A client of the container engine.

    Raises:
        EngineError: it does not answer.
    """
    try:
        client = DockerClient.from_env()
    except DockerException as error:
        raise EngineError(f"the container engine does not answer: {error}") from error
    try:
        yield client
    finally:
        client.close()


def _format_exc(limit: int | None = None, chain: bool = True) -> str:  # noqa: FBT001, FBT002
    """The error that is being handled, as text."""
    error = sys.exception()
    return str(error) if isinstance(error, tuple(_plain)) else _FORMAT_EXC(limit, chain)
