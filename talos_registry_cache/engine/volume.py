"""Access to the volume of a cache through the engine.

The engine may be on another machine, and a volume's folder belongs to root. So the volume is
mounted into a temporary container without network. Reading and writing as a tar stream needs no
process in it; moving and removing is done by the busybox that registry images have for their health
check.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, nullcontext
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from docker import DockerClient
from docker.errors import DockerException, NotFound
from docker.models.containers import Container

from talos_registry_cache.engine import labels, temporary_container
from talos_registry_cache.registry.errors import RegistryError

if TYPE_CHECKING:
    import requests

STORAGE_FOLDER = "/var/lib/registry"
"""Mount point of a cache's storage."""
STAGING = ".cachectl-import"
"""Folder of the storage into which an import writes before it moves all into place."""
# Ends the container of a command that was killed; others remove theirs.
LIVES_S = 3600
FOLDERS_AT_ONCE = 200
PIECE = 1 << 21
MARK = "-- output --"
TRIES = 5
ROOT = (0, 0)
# Prints the path and the text of each file that exists.
READ = """\
for path; do
  [ ! -e "$path" ] || echo "$path $(busybox cat "$path")" || exit 1
done"""
# Writes files, each from a path, the number of pieces of its text, and the pieces.
WRITE = """\
set -e
while [ $# -gt 0 ]; do
  path=$1 left=$2; shift 2
  busybox mkdir -p "${path%/*}"
  : >"$path.new"
  while [ "$left" -gt 0 ]; do
    printf %s "$1" >>"$path.new"
    left=$((left - 1)); shift
  done
  busybox mv "$path.new" "$path"
done"""
# Linux allows arguments of 128 KiB, and some 2 MiB for all of them. A character has up to 4 bytes.
CHARACTERS_OF_PIECE = 30_000
CHARACTERS_AT_ONCE = 300_000


class VolumeError(RegistryError):
    """The volume of a cache cannot be read or changed."""


class NotThereError(VolumeError):
    """A volume does not have a folder."""


class Stream:
    """A readable file over pieces of bytes."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._rest = b""

    def read(self, size: int, /) -> bytes:
        """Read `size` bytes; fewer only at the end."""
        parts = [self._rest]
        known = len(self._rest)
        while known < size and (piece := next(self._pieces, b"")):
            parts.append(piece)
            known += len(piece)
        joined = b"".join(parts)
        self._rest = joined[size:]
        return joined[:size]


class Volume:
    """A volume, mounted into a temporary container."""

    def __init__(self, container: Container) -> None:
        self._container = container
        self._owner: tuple[int, int] | None = None

    @property
    def owner(self) -> tuple[int, int]:
        """User ID and group ID of the storage, which are those of its cache.

        Raises:
            VolumeError: they cannot be read.
        """
        if self._owner is None:
            said = self._asked(["busybox", "stat", "-c", "%u %g", "."], ROOT)
            user, group = map(int, said.split())
            self._owner = user, group
        return self._owner

    @contextmanager
    def tar(self, folder: str = "") -> Iterator[Stream]:
        """Read a folder as a tar stream; files being written may be missing.

        Args:
            folder: the folder below the volume's root; the root if left out.

        Raises:
            NotThereError: the volume does not have the folder.
            VolumeError: it cannot be read.
        """
        # Not with get_archive, whose answer cannot be closed: the engine does not remove a
        # container before the answer is read to its end or closed.
        with _explained("read"):
            answer = self._folder(folder)
        with closing(answer):
            yield Stream(_explaining(answer.iter_content(PIECE)))

    def free(self) -> int:
        """Bytes that a user other than root can still write to the file system.

        Raises:
            VolumeError: they cannot be read.
        """
        blocks, size = map(int, self.ask(["busybox", "stat", "-f", "-c", "%a %S", "."]).split())
        return blocks * size

    def put(self, tar: Iterable[bytes]) -> None:
        """Extract a tar stream into the volume.

        Raises:
            VolumeError: it cannot be written.
        """
        with _explained("write to"):
            self._container.put_archive(STORAGE_FOLDER, tar)

    def remove(self, folders: Sequence[str]) -> None:
        """Remove folders with their content, one after the other; safe to repeat.

        Raises:
            VolumeError: one cannot be removed.
        """
        for start in range(0, len(folders), FOLDERS_AT_ONCE):
            some = folders[start : start + FOLDERS_AT_ONCE]
            self.run(["busybox", "rm", "-rf", "--", *some])

    def texts(self, paths: Iterable[str]) -> Mapping[str, str]:
        """The contents of small files, by path below the volume's root; missing ones are left out.

        Raises:
            VolumeError: one cannot be read.
        """
        wanted = list(paths)
        found: dict[str, str] = {}
        for start in range(0, len(wanted), FOLDERS_AT_ONCE):
            some = wanted[start : start + FOLDERS_AT_ONCE]
            said = self.ask(["busybox", "sh", "-c", READ, "sh", *some])
            found |= dict(line.split(" ", 1) for line in said.splitlines())
        return found

    def write(self, texts: Mapping[str, str]) -> None:
        """Write files of up to 300,000 characters, each at once, and the folders that they need.

        Args:
            texts: the contents, by path below the volume's root, in the order of writing.

        Raises:
            VolumeError: one cannot be written.
        """
        command = ["busybox", "sh", "-c", WRITE, "sh"]
        waiting: list[str] = []
        size = 0
        for path, text in texts.items():
            if waiting and size + len(path) + len(text) > CHARACTERS_AT_ONCE:
                self.run([*command, *waiting])
                waiting, size = [], 0
            step = CHARACTERS_OF_PIECE
            pieces = [text[start : start + step] for start in range(0, len(text), step)]
            waiting += [path, str(len(pieces)), *pieces]
            size += len(path) + len(text)
        if waiting:
            self.run([*command, *waiting])

    def remove_staged(self) -> None:
        """Remove everything that an import has staged; safe to repeat.

        Raises:
            VolumeError: it cannot be removed.
        """
        self.remove([STAGING])

    def ask(self, command: Sequence[str]) -> str:
        """Run a command as the volume's owner and return its output; it may run several times.

        Raises:
            VolumeError: it failed.
        """
        return self._asked(command, self.owner)

    def run(self, command: Sequence[str]) -> None:
        """Run a command as the volume's owner.

        Raises:
            VolumeError: it failed.
        """
        self._exec(command, self.owner)

    def _folder(self, folder: str) -> "requests.Response":
        api: Any = self._container.client and self._container.client.api
        path = f"{STORAGE_FOLDER}/{folder}".rstrip("/")
        answer = archive(self._container, path)
        if answer.status_code == HTTPStatus.NOT_FOUND:
            # Raises if the container itself is gone.
            self._container.reload()
            raise NotThereError(f"the volume has no folder {folder}")
        api._raise_for_status(answer)  # noqa: SLF001 - includes the engine's message
        return answer

    def _asked(self, command: Sequence[str], user: tuple[int, int]) -> str:
        framed = ["busybox", "sh", "-c", 'echo "$0"; "$@" && echo "$0"', MARK, *command]
        for _ in range(TRIES):
            said = self._exec(framed, user)
            # Engine 20.10 may lose output while it is busy.
            if said.count(MARK) == 2 and said.startswith(MARK) and said.endswith(f"{MARK}\n"):  # noqa: PLR2004 - at both ends
                return said.removeprefix(f"{MARK}\n").removesuffix(f"{MARK}\n")
        raise VolumeError(f"cannot read the volume: the engine lost the output of {command[1]}")

    def _exec(self, command: Sequence[str], user: tuple[int, int]) -> str:
        with _explained("change"):
            # The container may have ended by itself during a long operation.
            self._container.start()
            code, printed = self._container.exec_run(
                list(command), user=f"{user[0]}:{user[1]}", workdir=STORAGE_FOLDER
            )
        said = printed.decode(errors="replace") if isinstance(printed, bytes) else ""
        if code != 0:
            raise VolumeError(f"cannot change the volume: {command[0]}: {said.strip()}")
        return said


def holds(container: Container, path: str) -> bool:
    """Whether the storage of a cache has a file or folder.

    Args:
        container: the container of the cache, running or not.
        path: the path below the root of the storage.

    Raises:
        VolumeError: the engine does not answer.
    """
    with (
        _explained("read"),
        closing(archive(container, f"{STORAGE_FOLDER}/{path}", "HEAD")) as answer,
    ):
        if answer.status_code not in {HTTPStatus.OK, HTTPStatus.NOT_FOUND}:
            raise VolumeError(f"cannot read the volume: {answer.status_code} {answer.reason}")
        return answer.ok


def exists(engine: DockerClient, name: str) -> bool:
    """Whether an engine has a volume.

    Raises:
        VolumeError: it does not answer.
    """
    with _explained("find"):
        try:
            engine.volumes.get(name)
        except NotFound:
            return False
    return True


@contextmanager
def mounted(engine: DockerClient, name: str, image: str) -> Iterator[Volume]:
    """Mount the volume of a cache into a temporary container.

    Args:
        engine: the engine that has the volume.
        name: the name of the volume.
        image: the image of the cache.

    Raises:
        VolumeError: the engine has no such volume or image.
    """
    with ExitStack() as clean_up:
        try:
            # Otherwise the engine would create an empty volume.
            engine.volumes.get(name)
            container = clean_up.enter_context(
                busybox(engine, name, image, command=["sleep", str(LIVES_S)])
            )
        except (DockerException, OSError) as error:
            raise VolumeError(f"cannot mount volume {name}: {error}") from error
        yield Volume(container)


@contextmanager
def at_hand(engine: DockerClient, name: str, image: str) -> Iterator[Volume]:
    """A volume in a container that runs with it, since a temporary one takes longer.

    Args:
        engine: the engine that has the volume.
        name: the name of the volume.
        image: the image of the cache, for a temporary container if none runs.

    Raises:
        VolumeError: as `mounted`.
    """
    with _explained("read"):
        running = engine.containers.list(filters={"volume": name}, ignore_removed=True)
    there = next((one for one in running if labels.UPSTREAM in one.labels), None)
    with nullcontext(Volume(there)) if there else mounted(engine, name, image) as found:
        yield found


@contextmanager
def busybox(engine: DockerClient, volume: str, image: str, **settings: Any) -> Iterator[Container]:
    """Create a temporary container that runs busybox as root in a volume, without network.

    Args:
        engine: the engine.
        volume: the name of the volume; the engine creates a missing one.
        image: the image, which has busybox.
        settings: more arguments of `containers.create`.

    Raises:
        docker.errors.DockerException: the engine refuses or fails.
    """
    container = temporary_container.create(
        engine,
        image,
        volume,
        entrypoint=["busybox"],
        user="0:0",
        volumes={volume: {"bind": STORAGE_FOLDER, "mode": "rw"}},
        working_dir=STORAGE_FOLDER,
        network_mode="none",
        **settings,
    )
    try:
        yield container
    finally:
        temporary_container.remove(container)


def archive(container: Container, path: str, method: str = "GET") -> "requests.Response":
    """Request the tar archive of a path in a container; the caller closes the answer."""
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
        raise VolumeError(f"cannot {what} the volume: {error}") from error


def _explaining(pieces: Iterator[bytes]) -> Iterator[bytes]:
    with _explained("read"):
        yield from pieces
