"""Whom the storage in a volume belongs to: one user, whichever image runs on it.

A new volume gets the owner that the image's own folder has, and what an image writes belongs to the
user that it names: root in one, somebody else in another. Without capabilities, neither can write
where the other has. So the caches of an engine all run as one user, and a volume is handed over to
that user before a cache starts on it.
"""

import io
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import Any

from docker import DockerClient
from docker.errors import DockerException
from docker.models.containers import Container

from talos_registry_cache.engine import throwaway
from talos_registry_cache.engine import volume as volumes
from talos_registry_cache.registry.errors import RegistryError

Owner = tuple[int, int]
"""A user and a group, by their numbers."""

OWNER: Owner = (65532, 65532)
STORAGE_FOLDER = PurePosixPath(volumes.STORAGE_FOLDER)
# The first folder that a registry makes there.
FIRST_FOLDER = "docker"
CHANGED_WITHIN_S = 3600
CAPABILITIES = ["CHOWN", "DAC_READ_SEARCH"]

Say = Callable[[str], None]


class OwnershipError(RegistryError):
    """A volume cannot be handed over."""


def user(owner: Owner = OWNER) -> str:
    """An owner in the form in which engines take users."""
    return "{}:{}".format(*owner)


def hand_over(engine: DockerClient, volume: str, image: str, say: Say) -> None:
    """Make sure that the storage in a volume belongs to `OWNER`; safe to repeat.

    Args:
        engine: the engine that has the volume.
        volume: its name.
        image: the image of the cache that is to use it.
        say: is told when the files of another owner change hands, which may take a while.

    Raises:
        OwnershipError: it belongs to somebody else, and that cannot be changed.
    """
    try:
        # An engine puts nothing into what is read-only, and this never runs.
        with _made(engine, volume, image, read_only=False) as container:
            found = _on_the_way_down(engine, container)
            if set(found) == {OWNER}:
                return
            if len(found) == 1:
                _put_folders(container)
                return
        say(f"the files in the volume {volume} get the owner {user()}; some have {user(found[0])}")
        _change(engine, volume, image)
    except (DockerException, OSError, tarfile.TarError) as error:
        raise OwnershipError(
            f"the volume {volume} cannot be given to the user {user()}: {error}"
        ) from error


def find(engine: DockerClient, volume: str, image: str) -> Owner:
    """Whom the storage in a volume belongs to.

    Raises:
        OwnershipError: the engine does not tell.
    """
    try:
        with _made(engine, volume, image) as container:
            return _on_the_way_down(engine, container)[0]
    except (DockerException, OSError, tarfile.TarError) as error:
        raise OwnershipError(f"cannot look into the volume {volume}: {error}") from error


def _on_the_way_down(engine: DockerClient, container: Container) -> list[Owner]:
    """The owners of the storage's folder, and of all on the way down to the first file in it."""
    api = engine.api
    url = f"{api.base_url}/v{api.api_version}/containers/{container.id}/archive"
    # The answer has all that is stored; it is cut off after its beginning.
    plain = {"Accept-Encoding": "identity"}
    path = {"path": str(STORAGE_FOLDER)}
    with api.get(url, params=path, headers=plain, stream=True) as answer:
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

    With a folder in it: to a volume that is empty, an engine gives the owner of the image's folder
    whenever a container is made on it.
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
    # The storage's own folder comes last, so that what was interrupted is seen and done again.
    command = (
        f"find . -depth ( ! -user {OWNER[0]} -o ! -group {OWNER[1]} ) "
        f"-exec busybox chown -h {user()} {{}} +"
    )
    with _made(engine, volume, image, command=command.split(), cap_add=CAPABILITIES) as container:
        container.start()
        code = container.wait(timeout=CHANGED_WITHIN_S)["StatusCode"]
        said = container.logs(tail=1).decode(errors="replace").strip()
    if code != 0:
        raise OSError(said or f"chown ended with {code}")


@contextmanager
def _made(engine: DockerClient, volume: str, image: str, **settings: Any) -> Iterator[Container]:
    container = throwaway.create(
        engine,
        image,
        volume,
        entrypoint=["busybox"],
        user="0:0",
        volumes={volume: {"bind": str(STORAGE_FOLDER), "mode": "rw"}},
        working_dir=str(STORAGE_FOLDER),
        network_mode="none",
        **settings,
    )
    try:
        yield container
    finally:
        throwaway.remove(container)
