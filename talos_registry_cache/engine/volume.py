"""The volume of a cache as the engine gives access to it: read, written and changed as a stream.

The engine may be on another machine, and on this one a volume's folder belongs to root. So it is
mounted into a container that has no network: copying out of and into a volume needs no process in
it, and what does (moving and removing) is done by the busybox that the registry's images have for
their health check.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from docker import DockerClient
from docker.errors import DockerException
from docker.models.containers import Container

from talos_registry_cache.engine import throwaway
from talos_registry_cache.registry.errors import RegistryError

if TYPE_CHECKING:
    import requests

STORAGE_FOLDER = "/var/lib/registry"
"""Where a cache has its storage."""
STAGING = ".cachectl-import"
"""Where an import writes, below the root of the storage, before it moves all into place."""
# One is removed when it has done its work; this is for one whose maker was killed.
LIVES_S = 3600
FOLDERS_AT_ONCE = 200
PIECE = 1 << 21
MARK = "-- what was asked --"
TRIES = 5
ROOT = (0, 0)


class VolumeError(RegistryError):
    """The volume of a cache cannot be read or changed."""


class NotThereError(VolumeError):
    """A volume has no such folder."""


class Stream:
    """Bytes that come in pieces, read as a file is."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._rest = b""

    def read(self, size: int, /) -> bytes:
        """Up to `size` bytes, and fewer at the end only."""
        parts = [self._rest]
        known = len(self._rest)
        while known < size and (piece := next(self._pieces, b"")):
            parts.append(piece)
            known += len(piece)
        joined = b"".join(parts)
        self._rest = joined[size:]
        return joined[:size]


class Volume:
    """A volume that is mounted."""

    def __init__(self, container: Container) -> None:
        self._container = container
        self._owner: tuple[int, int] | None = None

    @property
    def owner(self) -> tuple[int, int]:
        """The user and the group that the storage belongs to: those that its cache runs as.

        Raises:
            VolumeError: the engine does not tell.
        """
        if self._owner is None:
            said = self._asked(["busybox", "stat", "-c", "%u %g", "."], ROOT)
            user, group = map(int, said.split())
            self._owner = user, group
        return self._owner

    @contextmanager
    def tar(self, folder: str = "") -> Iterator[Stream]:
        """All that it holds, as a tar stream; what is being written to it may be missing.

        Args:
            folder: the folder that is read, below its root; all where it is left out.

        Raises:
            NotThereError: it has no such folder.
            VolumeError: it cannot be read.
        """
        # Not by get_archive, whose answer cannot be closed: until its end, or until it is closed,
        # the engine does not remove the container.
        with _explained("read"):
            answer = self._archive(folder)
        with closing(answer):
            yield Stream(_explaining(answer.iter_content(PIECE)))

    def free(self) -> int:
        """How many bytes more its file system takes from who is not root.

        Raises:
            VolumeError: it does not tell.
        """
        blocks, size = map(int, self.ask(["busybox", "stat", "-f", "-c", "%a %S", "."]).split())
        return blocks * size

    def put(self, tar: Iterable[bytes]) -> None:
        """Write the files of a tar stream.

        Raises:
            VolumeError: they cannot be written.
        """
        with _explained("write to"):
            self._container.put_archive(STORAGE_FOLDER, tar)

    def remove(self, folders: Sequence[str]) -> None:
        """Remove folders and all that is in them, one after the other; safe to repeat.

        Raises:
            VolumeError: one cannot be removed.
        """
        for start in range(0, len(folders), FOLDERS_AT_ONCE):
            some = folders[start : start + FOLDERS_AT_ONCE]
            self.run(["busybox", "rm", "-rf", "--", *some])

    def ask(self, command: Sequence[str]) -> str:
        """What a command that changes nothing prints, run in its folder, as its owner.

        Raises:
            VolumeError: it failed.
        """
        return self._asked(command, self.owner)

    def run(self, command: Sequence[str]) -> None:
        """Run a command in its folder, as its owner.

        Raises:
            VolumeError: it failed.
        """
        self._exec(command, self.owner)

    def _archive(self, folder: str) -> "requests.Response":
        api: Any = self._container.client and self._container.client.api
        path = f"{STORAGE_FOLDER}/{folder}".rstrip("/")
        answer = _archive(self._container, path, "GET")
        if answer.status_code == HTTPStatus.NOT_FOUND:
            # Else it is the container that is gone.
            self._container.reload()
            raise NotThereError(f"a volume has no folder {folder}")
        api._raise_for_status(answer)  # noqa: SLF001 - with what the engine says
        return answer

    def _asked(self, command: Sequence[str], user: tuple[int, int]) -> str:
        framed = ["busybox", "sh", "-c", 'echo "$0"; "$@" && echo "$0"', MARK, *command]
        for _ in range(TRIES):
            said = self._exec(framed, user)
            # Engine 20.10 may lose some of what is printed while it has much to do.
            if said.count(MARK) == 2 and said.startswith(MARK) and said.endswith(f"{MARK}\n"):  # noqa: PLR2004 - at both ends
                return said.removeprefix(f"{MARK}\n").removesuffix(f"{MARK}\n")
        raise VolumeError(f"cannot look into a volume: {command[1]}: the engine lost its answer")

    def _exec(self, command: Sequence[str], user: tuple[int, int]) -> str:
        with _explained("change"):
            # It ends by itself after a while, which long work outlasts.
            self._container.start()
            code, printed = self._container.exec_run(
                list(command), user=f"{user[0]}:{user[1]}", workdir=STORAGE_FOLDER
            )
        said = printed.decode(errors="replace") if isinstance(printed, bytes) else ""
        if code != 0:
            raise VolumeError(f"cannot change a volume: {command[0]}: {said.strip()}")
        return said


def holds(container: Container, path: str) -> bool:
    """Whether the storage of a cache has a file or a folder at a path.

    Args:
        container: that of the cache, which need not run.
        path: the path below the root of the storage.

    Raises:
        VolumeError: the engine does not tell.
    """
    with (
        _explained("look into"),
        closing(_archive(container, f"{STORAGE_FOLDER}/{path}", "HEAD")) as answer,
    ):
        if answer.status_code not in {HTTPStatus.OK, HTTPStatus.NOT_FOUND}:
            raise VolumeError(f"cannot look into a volume: {answer.status_code} {answer.reason}")
        return answer.ok


@contextmanager
def mounted(engine: DockerClient, name: str, image: str) -> Iterator[Volume]:
    """Mount the volume of a cache.

    Args:
        engine: the engine that has it.
        name: its name.
        image: the image of the cache.

    Raises:
        VolumeError: the engine has no such volume or image.
    """
    try:
        # Else the engine would make an empty one.
        engine.volumes.get(name)
        container = throwaway.create(
            engine,
            image,
            name,
            command=["sleep", str(LIVES_S)],
            entrypoint=["busybox"],
            user="0:0",
            volumes={name: {"bind": STORAGE_FOLDER, "mode": "rw"}},
            network_mode="none",
        )
    except (DockerException, OSError) as error:
        raise VolumeError(f"cannot mount the volume {name}: {error}") from error
    try:
        yield Volume(container)
    finally:
        throwaway.remove(container)


def _archive(container: Container, path: str, method: str) -> "requests.Response":
    """What the engine answers about what is at a path of a container, as a tar."""
    api: Any = container.client and container.client.api
    answer: requests.Response = api.request(
        method,
        f"{api.base_url}/v{api.api_version}/containers/{container.id}/archive",
        params={"path": path},
        headers={"Accept-Encoding": "identity"},
        stream=True,
        timeout=api.timeout,
    )
    return answer


@contextmanager
def _explained(what: str) -> Iterator[None]:
    try:
        yield
    except (DockerException, OSError) as error:
        raise VolumeError(f"cannot {what} a volume: {error}") from error


def _explaining(pieces: Iterator[bytes]) -> Iterator[bytes]:
    with _explained("read"):
        yield from pieces
