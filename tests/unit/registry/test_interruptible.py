"""An interruption ends the waiting for what cannot be interrupted."""

import asyncio
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from talos_registry_cache.registry import interruptible, object_store
from talos_registry_cache.registry.object_store import ObjectStore
from talos_registry_cache.registry.s3_location import S3Credentials, S3Location

AFTER_S = 0.3
WITHIN_S = 2.0


@contextmanager
def interrupted() -> Iterator[None]:
    """Ctrl-C in a moment, which ends the block."""
    process = threading.main_thread().ident
    assert process is not None
    timer = threading.Timer(AFTER_S, signal.pthread_kill, (process, signal.SIGINT))
    started = time.monotonic()
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        yield
    assert AFTER_S <= time.monotonic() - started < WITHIN_S


@pytest.fixture
def ended() -> Iterator[threading.Event]:
    """What a thread waits for in vain; it comes after the test."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def silent() -> Iterator[str]:
    """The URL of somebody who takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_results_and_errors_are_handed_on() -> None:
    async def answer() -> int:
        return 42

    async def fail() -> None:
        raise ZeroDivisionError

    assert interruptible.run(answer()) == 42
    with pytest.raises(ZeroDivisionError):
        interruptible.run(fail())


def test_a_thread_of_an_event_loop_is_not_waited_for(ended: threading.Event) -> None:
    async def look_up() -> Any:
        return await asyncio.get_running_loop().run_in_executor(None, ended.wait)

    with interrupted():
        interruptible.run(look_up())


@pytest.mark.parametrize(
    "work", [ObjectStore.read, ObjectStore.tags, lambda store: store.remove(["a"])]
)
def test_a_store_that_does_not_answer_is_not_waited_for(
    silent: str, work: Callable[[ObjectStore], Any]
) -> None:
    location = S3Location("caches", "docker.io", endpoint=silent)

    with interrupted(), object_store.opened(location, S3Credentials("key", "secret")) as store:
        work(store)
