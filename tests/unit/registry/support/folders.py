"""A cache's storage in a folder, read and repaired like an engine's volume."""

import io
import shutil
import tarfile
from pathlib import Path

from talos_registry_cache.registry import layout
from talos_registry_cache.registry.layout import Damage, Storage


def tar(root: Path) -> io.BytesIO:
    """Return a folder as a tar stream."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.add(root, "registry")
    stream.seek(0)
    return stream


def read(root: Path) -> Storage:
    """Read a storage."""
    return layout.read(tar(root))


def scrub(root: Path) -> list[Damage]:
    """Find the damage in a storage."""
    return list(layout.damages(read(root)))


def repair(root: Path, damage: Damage) -> None:
    """Remove the damaged folders."""
    for folder in damage.folders:
        shutil.rmtree(root / folder, ignore_errors=True)
