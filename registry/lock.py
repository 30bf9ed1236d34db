"""One process at a time: two that warm the same caches at once would fetch the same twice."""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

FOLDER = "talos-registry-cache"


@contextmanager
def held(name: str, on_wait: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Hold what has a name, against all other processes of this user on this machine.

    Whoever serves, warms or changes the storages of a stack holds the stack's name. A process that
    dies holds nothing any more.

    Args:
        name: such as that of a stack.
        on_wait: is called where another process holds it, before waiting for that to end.
    """
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / FOLDER
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (folder / f"{name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_wait()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
