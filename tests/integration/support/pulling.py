"""A client that repeatedly pulls an image in the background."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

JOINED_WITHIN_S = 450


@dataclass(slots=True)
class Pulls:
    """The results of the pulls.

    Attributes:
        done: number of successful pulls.
        failures: errors of the failed pulls.
    """

    done: int = 0
    failures: list[str] = field(default_factory=list)


@contextmanager
def pulling(pull: Callable[[], object]) -> Iterator[Pulls]:
    """Pull at least once, until the end of the block."""
    pulls, ended = Pulls(), threading.Event()

    def again_and_again() -> None:
        while not ended.is_set():
            try:
                pull()
                pulls.done += 1
            except Exception as error:  # noqa: BLE001 - every kind of failure counts
                pulls.failures.append(str(error))

    thread = threading.Thread(target=again_and_again)
    thread.start()
    try:
        yield pulls
    finally:
        ended.set()
        thread.join(JOINED_WITHIN_S)
