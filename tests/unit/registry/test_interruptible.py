"""Ctrl-C ends the wait for threads and for object stores."""

import asyncio
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from talos_registry_cache.registry import interruptible, object_store
from talos_registry_cache.registry.object_store import ObjectStore
from talos_registry_cache.registry.s3_location import S3Credentials, S3Location

AFTER_S = 0.3
WITHIN_S = 5.0


@contextmanager
def interrupted(waiting: threading.Event) -> Iterator[None]:
    """Press Ctrl-C a moment after the event, and expect the block to end."""
    main = threading.main_thread().ident
    assert main is not None
    pressed: list[float] = []

    def press() -> None:
        waiting.wait()
        time.sleep(AFTER_S)
        pressed.append(time.monotonic())
        signal.pthread_kill(main, signal.SIGINT)

    thread = threading.Thread(target=press)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        yield
    thread.join()
    assert time.monotonic() - pressed[0] < WITHIN_S


@pytest.fixture
def ended() -> Iterator[threading.Event]:
    """An event that is set only after the test."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def silent() -> Iterator[tuple[str, threading.Event]]:
    """The URL of a server that sends nothing, and an event that is set once it is asked."""
    asked = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server, ExitStack() as connections:

        def accept() -> None:
            connections.enter_context(server.accept()[0])
            asked.set()

        thread = threading.Thread(target=accept)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}", asked
        thread.join()


def test_results_and_errors_are_passed_on() -> None:
    async def answer() -> int:
        return 42

    async def fail() -> None:
        raise ZeroDivisionError

    assert interruptible.run(answer()) == 42
    with pytest.raises(ZeroDivisionError):
        interruptible.run(fail())


def test_threads_of_the_event_loop_are_not_waited_for(ended: threading.Event) -> None:
    begun = threading.Event()

    async def look_up() -> Any:
        begun.set()
        return await asyncio.get_running_loop().run_in_executor(None, ended.wait)

    with interrupted(begun):
        interruptible.run(look_up())


@pytest.mark.parametrize(
    "work", [ObjectStore.read, ObjectStore.tags, lambda store: store.remove(["a"])]
)
def test_a_silent_object_store_is_not_waited_for(
    silent: tuple[str, threading.Event], work: Callable[[ObjectStore], Any]
) -> None:
    url, asked = silent
    location = S3Location("caches", "docker.io", endpoint=url)

    with interrupted(asked), object_store.opened(location, S3Credentials("key", "secret")) as store:
        work(store)
