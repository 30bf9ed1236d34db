"""The storage of a registry on disk: what it holds, what of it is damaged, and its repair.

The layout is that of distribution's file system driver (registry/storage/paths.go, 3.1.2):

    docker/registry/v2/
        blobs/sha256/<first two digits>/<hex>/data
        repositories/<name>/_layers/sha256/<hex>/link
        repositories/<name>/_manifests/revisions/sha256/<hex>/link
        repositories/<name>/_manifests/tags/<tag>/current/link
        repositories/<name>/_manifests/tags/<tag>/index/sha256/<hex>/link

A link is a file that holds a digest. Nothing is followed but those, so no link of the file system
leads anywhere else.
"""

import hashlib
import os
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from registry.reference import is_digest

PIECE = 1 << 20
LONGEST_LINK = 256


@dataclass(frozen=True, slots=True)
class Damage:
    """Content that a storage should have, and has not or not as it was.

    Attributes:
        digest: the content, or None where not even that can be told.
        problem: what is wrong.
        repositories: those that refer to it.
        paths: the folders to remove, so that the next pull fetches it again; the content's first.
    """

    digest: str | None
    problem: str
    repositories: tuple[str, ...]
    paths: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class _Link:
    """What refers to content.

    Attributes:
        repository: the repository that it belongs to.
        folder: what to remove in order to forget it.
        named: the digest that its folder is named after, or None where that is a tag's.
        digest: the digest that it holds, or None where it holds none.
    """

    repository: str
    folder: Path
    named: str | None
    digest: str | None

    @property
    def is_sound(self) -> bool:
        return self.digest is not None and self.named in {None, self.digest}


def repositories(root: Path) -> Iterator[str]:
    """The repositories of a storage, by name.

    Args:
        root: the folder that the registry has as its `rootdirectory`.
    """
    base = _v2(root) / "repositories"
    for folder, names, _ in os.walk(base):
        if {"_layers", "_manifests"} & set(names):
            yield Path(folder).relative_to(base).as_posix()
        names[:] = sorted(name for name in names if not name.startswith("_"))


def tags(root: Path, repository: str) -> dict[str, str]:
    """The tags of a repository, each with the digest that it stands for."""
    folder = _v2(root) / "repositories" / repository / "_manifests" / "tags"
    found = {tag.name: _read_link(tag / "current" / "link") for tag in _folders(folder)}
    return {tag: digest for tag, digest in found.items() if digest}


def blobs(root: Path) -> dict[str, int]:
    """What is stored, manifests too: each digest with the size of its content in bytes."""
    sizes = {}
    for beginning in _folders(_v2(root) / "blobs" / "sha256"):
        for folder in _folders(beginning):
            data = folder / "data"
            if is_digest(f"sha256:{folder.name}") and data.is_file():
                sizes[f"sha256:{folder.name}"] = data.stat().st_size
    return sizes


def scrub(root: Path, on_bytes: Callable[[int], object] = lambda _: None) -> Iterator[Damage]:
    """Read all that is stored, and find what is damaged or gone.

    Args:
        root: the folder that the registry has as its `rootdirectory`.
        on_bytes: is told how many bytes were read, as they are.
    """
    links: defaultdict[str, list[_Link]] = defaultdict(list)
    for link in _links(root):
        if link.is_sound and link.digest:
            links[link.digest].append(link)
        else:
            problem = f"its link holds {link.digest or 'no digest'}"
            yield Damage(link.named, problem, (link.repository,), (link.folder,))
    stored = blobs(root)
    for digest in stored:
        found = _hash(_data(root, digest), on_bytes)
        if found != digest:
            yield _damage(root, digest, f"its content has the digest {found}", links)
    for digest in links:
        if digest not in stored:
            yield _damage(root, digest, "its content is gone", links)


def repair(damage: Damage) -> None:
    """Remove what is damaged and what refers to it, and nothing else; safe to repeat.

    Stop the registry first, or restart it then: it remembers what it had.
    """
    # The content first: a registry never overwrites one that is there.
    for path in damage.paths:
        with suppress(FileNotFoundError):
            shutil.rmtree(path)


def _damage(root: Path, digest: str, problem: str, links: Mapping[str, list[_Link]]) -> Damage:
    own = links.get(digest, [])
    return Damage(
        digest,
        problem,
        tuple(sorted({link.repository for link in own})),
        (_data(root, digest).parent, *(link.folder for link in own)),
    )


def _links(root: Path) -> Iterator[_Link]:
    """All that refers to content."""
    for repository in repositories(root):
        base = _v2(root) / "repositories" / repository
        tagged = list(_folders(base / "_manifests" / "tags"))
        for named_after in (
            base / "_layers",
            base / "_manifests" / "revisions",
            *(tag / "index" for tag in tagged),
        ):
            for folder in _folders(named_after / "sha256"):
                digest = _read_link(folder / "link")
                yield _Link(repository, folder, f"sha256:{folder.name}", digest)
        for tag in tagged:
            # As a whole: a tag that stands for nothing would still be listed.
            yield _Link(repository, tag, None, _read_link(tag / "current" / "link"))


def _read_link(path: Path) -> str | None:
    """The digest in a link, or None where there is no usable one."""
    try:
        with path.open("rb") as link:
            text = link.read(LONGEST_LINK).decode(errors="replace").strip()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return text if is_digest(text) else None


def _hash(path: Path, on_bytes: Callable[[int], object]) -> str:
    content = hashlib.sha256()
    with path.open("rb") as data:
        while piece := data.read(PIECE):
            content.update(piece)
            on_bytes(len(piece))
    return f"sha256:{content.hexdigest()}"


def _data(root: Path, digest: str) -> Path:
    name = digest.removeprefix("sha256:")
    return _v2(root) / "blobs" / "sha256" / name[:2] / name / "data"


def _v2(root: Path) -> Path:
    return root / "docker" / "registry" / "v2"


def _folders(folder: Path) -> Iterator[Path]:
    """The folders in a folder, by name; none where it does not exist."""
    if folder.is_dir():
        yield from sorted(
            entry for entry in folder.iterdir() if entry.is_dir() and not entry.is_symlink()
        )
