"""Adding content to a storage so that an interruption at any time leaves the storage as it was.

Everything is written to a folder of its own in the same volume, and moved once it is complete:
blobs first and tags last, so that nothing ever refers to what is missing. A move within a volume
happens or does not; a blob that is there already is replaced by an equal one.

A command stages while it holds the lock of the stack. So whatever another holder of the lock finds
in that folder was left behind by a process that was killed.
"""

import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from talos_registry_cache.cli import console
from talos_registry_cache.cli.errors import CachectlError
from talos_registry_cache.cli.oci_layout import Content
from talos_registry_cache.cli.tar_stream import END, header, padding
from talos_registry_cache.engine.volume import STAGING, Volume, VolumeError
from talos_registry_cache.registry import layout
from talos_registry_cache.registry.layout import V2

CONTENT, LINKS = f"{STAGING}/content", f"{STAGING}/links"
# Stays free for what the cache itself writes meanwhile.
RESERVE = 64 << 20
# How much is written between two looks at the free space.
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
    """Content does not fit into a volume."""


@dataclass(frozen=True, slots=True)
class Addition:
    """What is added to a storage.

    Attributes:
        blobs: their sizes in bytes, by digest.
        links: the digests that links hold, by their paths below the storage's root.
    """

    blobs: Mapping[str, int]
    links: Mapping[str, str]


def stage(volume: Volume, contents: Iterable[Content]) -> None:
    """Write blobs to the staging folder, as long as they fit.

    Raises:
        NoRoomError: one does not fit.
        VolumeError: one cannot be written.
    """
    ahead = _Ahead(contents)
    # The engine answers nothing about a container while it writes to it. So it is asked in between.
    while ahead.content:
        room = _room_for(_takes(ahead.content.size), volume)
        _put(volume, _blobs(ahead, min(room, WRITTEN_AT_ONCE), volume.owner))


def stage_links(volume: Volume, links: Mapping[str, str]) -> None:
    """Write links to the staging folder.

    Raises:
        NoRoomError: they do not fit.
        VolumeError: they cannot be written.
    """
    # Twice: their folders are made here, and again where they are moved to.
    _room_for(2 * BLOCK * sum(1 for _ in _links(links, volume.owner)), volume)
    _put(volume, _links(links, volume.owner))


def commit(volume: Volume, addition: Addition) -> None:
    """Move everything that was staged into the storage.

    Raises:
        VolumeError: some of it is missing, or cannot be moved.
    """
    files = len(addition.blobs) + len(addition.links)
    volume.run(["sh", "-c", COMMIT, "sh", str(files)])


class _Ahead:
    """An iterator over blobs that shows the next one."""

    def __init__(self, contents: Iterable[Content]) -> None:
        self._contents = iter(contents)
        self.next()

    def next(self) -> None:
        """Go on to the next blob; None after the last."""
        self.content = next(self._contents, None)


def _room_for(size: int, volume: Volume) -> int:
    """How many bytes fit into a volume; an error if `size` bytes do not."""
    room = volume.free() - RESERVE
    if size > room:
        raise NoRoomError(
            f"the next {console.size(size)} do not fit: where the volume is, "
            f"{console.size(room + RESERVE)} are free, and {console.size(RESERVE)} must stay free"
        )
    return room


def _takes(size: int) -> int:
    """The space that a blob takes, with the two folders that it may need in the end."""
    return size + 3 * BLOCK


def _put(volume: Volume, tar: Iterable[bytes]) -> None:
    try:
        volume.put(tar)
    except VolumeError as error:
        # The engine may break off before it says why.
        _room_for(0, volume)
        raise VolumeError(f"{error}; none of it is kept") from error


def _blobs(ahead: _Ahead, room: int, owner: tuple[int, int]) -> Iterator[bytes]:
    """A tar of the next blob, and of those after it as long as they fit."""
    for folder in (STAGING, CONTENT):
        yield header(folder, 0, owner=owner, kind=tarfile.DIRTYPE)
    first = True
    while (blob := ahead.content) and (first or _takes(blob.size) <= room):
        yield header(f"{CONTENT}/{blob.digest.removeprefix('sha256:')}", blob.size, owner=owner)
        yield from blob.pieces
        yield padding(blob.size)
        room -= _takes(blob.size)
        first = False
        ahead.next()
    yield END


def _links(links: Mapping[str, str], owner: tuple[int, int]) -> Iterator[bytes]:
    # The engine would make folders of its own for root, into which the cache could not write.
    made: set[str] = set()
    for link, digest in links.items():
        path = f"{LINKS}/{link}"
        for folder in layout.folders_above(path):
            if folder not in made:
                made.add(folder)
                yield header(folder, 0, owner=owner, kind=tarfile.DIRTYPE)
        content = digest.encode()
        yield header(path, len(content), owner=owner) + content + padding(len(content))
    yield END
