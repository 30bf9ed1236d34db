"""`docker pull` and `docker push`, as a client of the caches and of a local registry."""

import re
import tarfile
from pathlib import Path
from urllib.parse import urlsplit

from tests.integration.support import processes
from tests.integration.support.upstream import Pushed
from toolchain import debian

PULL_WITHIN_S = 60
# How a container runs busybox: without arguments, until it is stopped.
RUNS_BUSYBOX = ('ENTRYPOINT ["/busybox"]', 'CMD ["sleep", "infinity"]')


def pull(endpoint: str, image: Pushed, *, engine_host: str | None = None) -> str:
    """Pull an image through a cache, and return the digest that the engine verified.

    The image is removed again, so that the next pull finds none of its layers on the engine.

    Args:
        endpoint: URL of the cache.
        image: the image.
        engine_host: the engine that pulls; the default engine if left out.

    Raises:
        CommandFailedError: the pull failed.
    """
    docker = ["docker", *(["--host", engine_host] if engine_host else [])]
    reference = f"{urlsplit(endpoint).netloc}/{image.name}"
    try:
        printed = processes.run(*docker, "pull", reference, within_s=PULL_WITHIN_S)
    finally:
        processes.finish([*docker, "image", "rm", "--force", reference], within_s=PULL_WITHIN_S)
    digest = re.search(r"^Digest: (sha256:[0-9a-f]{64})$", printed, re.MULTILINE)
    assert digest is not None, printed
    assert "Pull complete" in printed, f"no layer was fetched:\n{printed}"
    return digest[1]


def push(source: str, target: str) -> str:
    """Push an image under another name, and return the digest that the registry has.

    Both names are removed from the engine.

    Raises:
        CommandFailedError: the push failed.
    """
    try:
        processes.run("docker", "pull", source, within_s=PULL_WITHIN_S)
        processes.run("docker", "tag", source, target, within_s=PULL_WITHIN_S)
        printed = processes.run("docker", "push", target, within_s=PULL_WITHIN_S)
    finally:
        processes.finish(
            ["docker", "image", "rm", "--force", source, target], within_s=PULL_WITHIN_S
        )
    return _pushed(printed)


def push_busybox(image: str, folder: Path, *, engine_host: str) -> str:
    """Push a new image that has busybox, and return the digest that the registry has.

    Args:
        image: its name.
        folder: a folder for its files.
        engine_host: the engine that pushes.

    Raises:
        CommandFailedError: the push failed.
    """
    docker = ("docker", "--host", engine_host)
    archive = folder / "busybox.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(debian.busybox(), "busybox")
    changes = [f"--change={change}" for change in RUNS_BUSYBOX]
    processes.run(*docker, "import", *changes, archive, image)
    try:
        return _pushed(processes.run(*docker, "push", image, within_s=PULL_WITHIN_S))
    finally:
        processes.finish([*docker, "image", "rm", image], within_s=PULL_WITHIN_S)


def _pushed(printed: str) -> str:
    """The digest in the output of `docker push`."""
    digest = re.search(r"digest: (sha256:[0-9a-f]{64})", printed)
    assert digest is not None, printed
    return digest[1]
