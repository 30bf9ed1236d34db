"""A lock between processes: two that warm a cache at once would fetch everything twice."""

import fcntl
import hashlib
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from docker import DockerClient
from docker.errors import DockerException

from talos_registry_cache.registry.errors import RegistryError

# The one folder that every user can write to, whatever the environment says.
FOLDER = Path("/tmp")  # noqa: S108 - nothing is written to these files, see _make and _opened
MODE = 0o444


class LockError(RegistryError):
    """A lock cannot be taken."""


@contextmanager
def held(
    engine: DockerClient, name: str, on_wait: Callable[[], object] = lambda: None
) -> Iterator[None]:
    """Hold a lock that only one process of this machine can have.

    Commands that serve, warm or change the storages of a stack hold the lock of the stack. It ends
    with its process. See docs/decisions/0018-locks-and-leftovers.md.

    Args:
        engine: the engine; another engine has other locks.
        name: the name of the lock, such as a stack's.
        on_wait: called before waiting for another process that holds the lock.

    Raises:
        LockError: the lock's file cannot be opened, or is not a regular file.
    """
    path = FOLDER / f"talos-registry-cache-{_key(engine, name)}.lock"
    while True:
        with _opened(path) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                on_wait()
                fcntl.flock(file, fcntl.LOCK_EX)
            # The previous holder removed the file after we opened it.
            if not _is_at(path, file):
                continue
            try:
                yield
            finally:
                with suppress(OSError):
                    # Only its owner can remove a file from /tmp.
                    path.unlink()
            return


def _key(engine: DockerClient, name: str) -> str:
    """Identifies an engine and a name; not by the engine's ID, which Podman makes up each time."""
    try:
        info = engine.info()
    except DockerException as error:
        raise LockError(f"the container engine does not answer: {error}") from error
    text = "\n".join((info.get("Name", ""), info.get("DockerRootDir", ""), name))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    """Open the file of a lock; created if missing, and never through a symbolic link."""
    try:
        while True:
            try:
                # Without O_CREAT: Linux refuses it for files that other users created in /tmp.
                file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            except FileNotFoundError:
                _make(path)
            else:
                break
    except OSError as error:
        raise LockError(f"cannot lock {path}: {error.strerror}; remove it") from error
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise LockError(f"cannot lock {path}: it is not a regular file; remove it")
        yield file
    finally:
        os.close(file)


def _make(path: Path) -> None:
    """Create the file of a lock, readable by every user from the start."""
    made, name = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}-")
    try:
        os.fchmod(made, MODE)
        with suppress(FileExistsError):
            path.hardlink_to(name)
    finally:
        os.close(made)
        Path(name).unlink()


def _is_at(path: Path, file: int) -> bool:
    try:
        return os.path.samestat(path.lstat(), os.fstat(file))
    except FileNotFoundError:
        return False
