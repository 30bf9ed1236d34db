"""The owner of the files in a cache's volume: one user, whichever image the cache runs.

Engines give a new volume the owner that the image's folder has, and registry images run as
different users, root or another. Without capabilities, one cannot write the files of the other. So
all caches run as one user, and a volume is handed over to that user before a cache starts on it.
"""

import io
import tarfile
from collections.abc import Callable
from contextlib import closing
from pathlib import PurePosixPath

from docker import DockerClient
from docker.errors import DockerException
from docker.models.containers import Container

from talos_registry_cache.engine import volume as volumes
from talos_registry_cache.registry.errors import RegistryError

Owner = tuple[int, int]
"""User ID and group ID."""

OWNER: Owner = (65532, 65532)
STORAGE_FOLDER = PurePosixPath(volumes.STORAGE_FOLDER)
# The first folder that a registry creates in its storage.
FIRST_FOLDER = "docker"
CHOWN_TIMEOUT_S = 3600
CAPABILITIES = ["CHOWN", "DAC_READ_SEARCH"]

Say = Callable[[str], None]


class OwnershipError(RegistryError):
    """The owner of a volume's files cannot be read or changed."""


def user(owner: Owner = OWNER) -> str:
    """An owner as engines take it: UID:GID."""
    return "{}:{}".format(*owner)


def hand_over(engine: DockerClient, volume: str, image: str, say: Say) -> None:
    """Give the files of a volume to `OWNER`; safe to repeat.

    Args:
        engine: the engine that has the volume.
        volume: the name of the volume.
        image: the image of the cache that will use it.
        say: receives a message when files change their owner, which may take a while.

    Raises:
        OwnershipError: the files have another owner, which cannot be changed.
    """
    try:
        # Engines copy nothing into a read-only container; this one is never started.
        with volumes.busybox(engine, volume, image, read_only=False) as container:
            found = _owners(container)
            if len(found) == 1:
                _put_folders(container)
                return
            if set(found) == {OWNER}:
                return
        say(f"changing the owner of the files in volume {volume} to {user()}")
        _change(engine, volume, image)
    except (DockerException, OSError, tarfile.TarError) as error:
        raise OwnershipError(
            f"cannot change the owner of volume {volume} to {user()}: {error}"
        ) from error


def _owners(container: Container) -> list[Owner]:
    """The owners of the storage folder, and of everything listed up to its first file."""
    # The archive has the whole storage; only its beginning is read.
    with closing(volumes.archive(container, str(STORAGE_FOLDER))) as answer:
        answer.raise_for_status()
        found = []
        with tarfile.open(fileobj=answer.raw, mode="r|", bufsize=tarfile.BLOCKSIZE) as tar:
            for member in tar:
                found.append((member.uid, member.gid))
                if not member.isdir():
                    break
    return found


def _put_folders(container: Container) -> None:
    """Give an empty storage to `OWNER`.

    It gets a folder, because engines reset the owner of an empty volume whenever they create a
    container on it.
    """
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name in (STORAGE_FOLDER.name, f"{STORAGE_FOLDER.name}/{FIRST_FOLDER}"):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            entry.uid, entry.gid = OWNER
            tar.addfile(entry)
    container.put_archive(str(STORAGE_FOLDER.parent), packed.getvalue())


def _change(engine: DockerClient, volume: str, image: str) -> None:
    # The storage folder comes last, so that an interrupted run is noticed and repeated.
    command = (
        f"find . -depth ( ! -user {OWNER[0]} -o ! -group {OWNER[1]} ) "
        f"-exec busybox chown -h {user()} {{}} +"
    )
    with volumes.busybox(
        engine, volume, image, command=command.split(), cap_add=CAPABILITIES
    ) as container:
        container.start()
        code = container.wait(timeout=CHOWN_TIMEOUT_S)["StatusCode"]
        said = container.logs(tail=1).decode(errors="replace").strip()
    if code != 0:
        raise OSError(said or f"chown ended with {code}")
