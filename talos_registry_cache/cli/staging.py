"""Bringing content into a storage such that an interruption at any time leaves it as it was.

All is written into a folder of its own in the same volume, and moved when it is complete: content
first, and a tag last, so that nothing ever leads to what is not there. A move within a volume
happens or does not; content that is there already is replaced by the same.

Who stages holds the lock of the stack. So whatever is found in that folder by somebody else who
holds it was left by a process that was killed.
"""

import tarfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from docker import DockerClient

from talos_registry_cache.cli import caches, console
from talos_registry_cache.cli.archive import Contents, Link, Piece, header, padding
from talos_registry_cache.cli.errors import CachectlError
from talos_registry_cache.cli.stack import Cache, Stack
from talos_registry_cache.engine import volume as volumes
from talos_registry_cache.engine.volume import STAGING, Volume, VolumeError
from talos_registry_cache.registry.layout import V2
from talos_registry_cache.registry.s3_location import S3Location

CONTENT, LINKS = f"{STAGING}/content", f"{STAGING}/links"
# What has to stay free, for what the cache itself writes meanwhile.
RESERVE = 64 << 20
# How much is written before it is asked anew how much is free.
WRITTEN_AT_ONCE = 256 << 20
BLOCK = 4 << 10

# The registry's images need not have links to busybox's programs.
COMMIT = f"""\
set -e
move() {{ busybox mkdir -p "${{2%/*}}"; busybox mv -f "$1" "$2"; }}
staged="$(busybox find {STAGING} -type f | busybox wc -l)"
if [ "$staged" -ne "$1" ]; then
  echo "$staged of $1 files are there: is another process at work on this cache?"
  exit 1
fi
for file in {CONTENT}/*; do
  [ -e "$file" ] || continue
  hex="${{file##*/}}"
  move "$file" "{V2}/blobs/sha256/${{hex%"${{hex#??}}"}}/$hex/data"
done
[ -d {LINKS} ] || exit 0
for kind in _layers _manifests/revisions _manifests/tags/*/index _manifests/tags/*/current; do
  busybox find {LINKS} -type f -path "*/$kind/*" | while read -r file; do
    move "$file" "${{file#{LINKS}/}}"
  done
done
"""


class NoRoomError(CachectlError):
    """What is to be written does not fit into a volume."""


def stage(volume: Volume, pieces: Iterable[Piece]) -> None:
    """Write content beside the storage, as long as it fits.

    Raises:
        NoRoomError: it does not.
        VolumeError: it cannot be written.
    """
    ahead = _Ahead(pieces)
    # The engine answers nothing about a container while it writes to it. So it is asked in between.
    while ahead.piece:
        room = _room_for(_takes(ahead.piece.size), volume)
        _put(volume, _content(ahead, min(room, WRITTEN_AT_ONCE), volume.owner))


def stage_links(volume: Volume, own: Contents) -> None:
    """Write beside the storage what refers to content.

    Raises:
        NoRoomError: it does not fit.
        VolumeError: it cannot be written.
    """
    # Twice: their folders are made here, and again where they are moved to.
    _room_for(2 * BLOCK * sum(1 for _ in _links(own.links, volume.owner)), volume)
    _put(volume, _links(own.links, volume.owner))


def commit(volume: Volume, own: Contents) -> None:
    """Make what was staged part of the storage.

    Raises:
        VolumeError: it is not all there, or cannot be moved.
    """
    files = len(own.content) + len({link.path for link in own.links})
    volume.run(["sh", "-c", COMMIT, "sh", str(files)])


def discard(volume: Volume) -> None:
    """Remove what was staged; safe to repeat."""
    volume.remove([STAGING])


@contextmanager
def alone(client: DockerClient, stack: Stack) -> Iterator[None]:
    """Keep other processes away from the storages of a stack, and clean up after those killed.

    Raises:
        VolumeError: what an import that was killed has left cannot be removed.
    """
    with caches.alone(stack):
        for cache in stack.caches.values():
            _clean_up(client, cache)
        yield


def _clean_up(client: DockerClient, cache: Cache) -> None:
    # A service has no container of its own; what it has left goes with the next import.
    if cache.is_service or isinstance(cache.storage, S3Location):
        return
    if volumes.holds(client.containers.get(cache.name), STAGING):
        with volumes.mounted(client, cache.storage, cache.image) as volume:
            discard(volume)
        console.say(f"{cache.registry}: removed what an import that was killed had left")


class _Ahead:
    """Pieces of content, of which the next one can be looked at."""

    def __init__(self, pieces: Iterable[Piece]) -> None:
        self._pieces = iter(pieces)
        self.piece = next(self._pieces, None)

    def next(self) -> None:
        self.piece = next(self._pieces, None)


def _room_for(size: int, volume: Volume) -> int:
    """How many bytes fit into a volume, in which so many have to."""
    room = volume.free() - RESERVE
    if size > room:
        raise NoRoomError(
            f"the next {console.size(size)} do not fit: {console.size(room + RESERVE)} are free "
            f"where the volume is, of which {console.size(RESERVE)} have to stay free"
        )
    return room


def _takes(size: int) -> int:
    """How much of a file system content takes, with the two folders that it may need in the end."""
    return size + 3 * BLOCK


def _put(volume: Volume, tar: Iterable[bytes]) -> None:
    try:
        volume.put(tar)
    except VolumeError as error:
        # The engine may break off before it says why.
        _room_for(0, volume)
        raise VolumeError(f"{error}; nothing of it is kept") from error


def _content(ahead: _Ahead, room: int, owner: tuple[int, int]) -> Iterator[bytes]:
    """A tar of the next content, and of what follows it and fits as well."""
    for folder in (STAGING, CONTENT):
        yield header(folder, 0, owner=owner, kind=tarfile.DIRTYPE)
    while first := ahead.piece:
        yield header(f"{CONTENT}/{first.digest.removeprefix('sha256:')}", first.size, owner=owner)
        while ahead.piece and ahead.piece.digest == first.digest:
            yield ahead.piece.piece
            ahead.next()
        yield padding(first.size)
        room -= _takes(first.size)
        if ahead.piece and _takes(ahead.piece.size) > room:
            break
    yield bytes(2 * tarfile.BLOCKSIZE)


def _links(links: Iterable[Link], owner: tuple[int, int]) -> Iterator[bytes]:
    # The engine would make folders of its own for root, into which the cache could not write.
    made: set[str] = set()
    for link in links:
        path = f"{LINKS}/{link.path}"
        for folder in _above(path):
            if folder not in made:
                made.add(folder)
                yield header(folder, 0, owner=owner, kind=tarfile.DIRTYPE)
        content = link.digest.encode()
        yield header(path, len(content), owner=owner) + content + padding(len(content))
    yield bytes(2 * tarfile.BLOCKSIZE)


def _above(path: str) -> Iterator[str]:
    """The folders that a file is in, the outermost first."""
    parts = path.split("/")
    yield from ("/".join(parts[:length]) for length in range(1, len(parts)))
