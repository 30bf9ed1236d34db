"""A storage in a folder: handed out as the engine hands out a volume, and repaired likewise."""

import io
import shutil
import tarfile
from pathlib import Path

from talos_registry_cache.registry import layout
from talos_registry_cache.registry.layout import Damage, Storage


def tar(root: Path) -> io.BytesIO:
    """A folder as a tar stream."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.add(root, "registry")
    stream.seek(0)
    return stream


def read(root: Path) -> Storage:
    """What a folder stores."""
    return layout.read(tar(root))


def scrub(root: Path) -> list[Damage]:
    """What is damaged in a folder."""
    return list(layout.damages(read(root)))


def repair(root: Path, damage: Damage) -> None:
    """Remove what is damaged."""
    for folder in damage.folders:
        shutil.rmtree(root / folder, ignore_errors=True)
