"""Bringing content into a storage such that an interruption at any time leaves it as it was.

All is written into a folder of its own in the same volume, and moved when it is complete: content
first, and a tag last, so that nothing ever leads to what is not there. A move within a volume
happens or does not; content that is there already is replaced by the same.
"""

import tarfile
from collections.abc import Iterable, Iterator

from cachectl.archive import Link, Piece, header, padding
from registry.storage import V2
from registry.volume import Volume

FOLDER = ".cachectl-import"
CONTENT, LINKS = f"{FOLDER}/content", f"{FOLDER}/links"

# The registry's images need not have links to busybox's programs.
COMMIT = f"""\
set -e
move() {{ busybox mkdir -p "${{2%/*}}"; busybox mv -f "$1" "$2"; }}
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


def stage(volume: Volume, pieces: Iterable[Piece]) -> None:
    """Write content beside the storage."""
    volume.put(_content(pieces, volume.owner))


def commit(volume: Volume, links: Iterable[Link]) -> None:
    """Make what was staged part of the storage, with what refers to it."""
    volume.put(_links(links, volume.owner))
    volume.run(["sh", "-c", COMMIT])


def discard(volume: Volume) -> None:
    """Remove what was staged; safe to repeat."""
    volume.remove([FOLDER])


def _content(pieces: Iterable[Piece], owner: tuple[int, int]) -> Iterator[bytes]:
    for folder in (FOLDER, CONTENT):
        yield header(folder, 0, owner=owner, kind=tarfile.DIRTYPE)
    begun, size = "", 0
    for piece in pieces:
        if piece.digest != begun:
            yield padding(size)
            begun, size = piece.digest, piece.size
            yield header(f"{CONTENT}/{begun.removeprefix('sha256:')}", size, owner=owner)
        yield piece.piece
    yield padding(size)
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
