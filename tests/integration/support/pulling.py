"""A client that pulls one image again and again while something else happens."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

JOINED_WITHIN_S = 450


@dataclass(slots=True)
class Pulls:
    """What came of its pulls.

    Attributes:
        done: how many succeeded.
        failures: why others did not.
    """

    done: int = 0
    failures: list[str] = field(default_factory=list)


@contextmanager
def pulling(pull: Callable[[], object]) -> Iterator[Pulls]:
    """Pull until the end of the block; one at least."""
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
