"""Running a coroutine such that Ctrl-C ends it at once."""

import asyncio
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

Result = TypeVar("Result")


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine like `asyncio.run`, but wait for no thread after Ctrl-C.

    Host names are resolved in threads, which may take long where no name server answers.
    """
    with asyncio.Runner() as runner:
        try:
            return runner.run(work)
        except KeyboardInterrupt:
            # Closing the loop waits for the threads of its current executor.
            runner.get_loop().set_default_executor(ThreadPoolExecutor())
            raise
