"""Entries of the tar archives that become layers of images."""

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path


def add_folder(tar: tarfile.TarFile, name: str, *, mode: int = 0o755, owner: int = 0) -> None:
    """Add a folder that belongs to a user and to the group of the same number."""
    tar.addfile(_entry(name, tarfile.DIRTYPE, mode, owner))


def add_file(tar: tarfile.TarFile, name: str, content: bytes, mode: int) -> None:
    """Add a file that belongs to root."""
    entry = _entry(name, tarfile.REGTYPE, mode)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))


def add_link(
    tar: tarfile.TarFile, name: str, target: str, *, kind: bytes = tarfile.SYMTYPE
) -> None:
    """Add a link: a symbolic one, or a hard one to a file that was added before."""
    entry = _entry(name, kind, 0o777)
    entry.linkname = target
    tar.addfile(entry)


def with_parents(folders: Iterable[str]) -> list[str]:
    """Return folders and all folders that contain them, parents first."""
    paths = {parent for folder in folders for parent in (Path(folder), *Path(folder).parents)}
    return sorted(str(path) for path in paths if path != Path())


def _entry(name: str, kind: bytes, mode: int, owner: int = 0) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode = kind, mode
    entry.uid = entry.gid = owner
    return entry
