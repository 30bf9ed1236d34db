"""Waiting for what cannot be interrupted itself, such that Ctrl-C ends the waiting."""

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

Result = TypeVar("Result")


def call(work: Callable[[], Result]) -> Result:
    """Do work that holds no interpreter lock and sees no signal, such as that of a library in Rust.

    An interruption is not kept waiting for its end, and it comes to nothing.
    """
    thread = ThreadPoolExecutor(max_workers=1)
    try:
        return thread.submit(work).result()
    finally:
        thread.shutdown(wait=False)


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """Do as `asyncio.run` does, but wait for no thread after an interruption.

    A name is looked up by a thread, which takes its time where no name server answers.
    """
    with asyncio.Runner() as runner:
        try:
            return runner.run(work)
        except KeyboardInterrupt:
            # The loop waits for the threads of the executor that it has when it is closed.
            runner.get_loop().set_default_executor(ThreadPoolExecutor())
            raise
