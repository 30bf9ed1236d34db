"""One process at a time: two that warm the same caches at once would fetch the same twice."""

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

# Where all users of a machine can write, whatever their environment says.
FOLDER = Path("/tmp")  # noqa: S108 - nothing is written there, see _made and _opened
MODE = 0o444


class LockError(RegistryError):
    """What is to be locked cannot be."""


@contextmanager
def held(
    engine: DockerClient, name: str, on_wait: Callable[[], object] = lambda: None
) -> Iterator[None]:
    """Hold what has a name on an engine, against all other processes of this machine.

    Whoever serves, warms or changes the storages of a stack holds the stack's name. A process that
    dies holds nothing any more. See docs/decisions/0018-locks-and-leftovers.md.

    Args:
        engine: the engine.
        name: such as that of a stack.
        on_wait: is called where another process holds it, before waiting for that to end.

    Raises:
        LockError: something else is in the place of the lock.
    """
    path = FOLDER / f"talos-registry-cache-{_key(engine, name)}.lock"
    while True:
        with _opened(path) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                on_wait()
                fcntl.flock(file, fcntl.LOCK_EX)
            # Who held it before has removed it.
            if not _is_at(path, file):
                continue
            try:
                yield
            finally:
                with suppress(OSError):
                    # Another user's stays.
                    path.unlink()
            return


def _key(engine: DockerClient, name: str) -> str:
    """What stands for a name on an engine; not its ID, which Podman makes up at each call."""
    try:
        info = engine.info()
    except DockerException as error:
        raise LockError(f"the container engine does not say what it is: {error}") from error
    text = "\n".join((info.get("Name", ""), info.get("DockerRootDir", ""), name))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    """The file of a lock, made where there is none; no other kind, and nobody's link to one."""
    try:
        while True:
            try:
                # Without O_CREAT, which Linux refuses for what another user has made there.
                file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            except FileNotFoundError:
                _make(path)
            else:
                break
    except OSError as error:
        raise LockError(f"cannot lock {path}: {error.strerror}; remove it") from error
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise LockError(f"cannot lock {path}: it is no regular file; remove it")
        yield file
    finally:
        os.close(file)


def _make(path: Path) -> None:
    """Make the file of a lock, which every user can open from the first moment on."""
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
