"""Two variants of the registry image: the official one, and the one that the toolchain builds.

Both are created from the image on the engine, whichever it is.
"""

import io
import secrets
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from docker import DockerClient
from docker.errors import ImageNotFound

from tests.integration.support.upstream import IMAGE

STORAGE = "var/lib/registry"
ENTRY_SCRIPT = b"""\
#!/bin/sh
set -e
case "$1" in
    *.yaml|*.yml) set -- registry serve "$@" ;;
    serve|garbage-collect|help|-*) set -- registry "$@" ;;
esac
exec "$@"
"""
COMMON = ("VOLUME /var/lib/registry", "EXPOSE 5000", 'CMD ["/etc/distribution/config.yml"]')


@dataclass(frozen=True, slots=True)
class Shape:
    """A variant of the image.

    Attributes:
        storage_owner: owner of the storage directory.
        changes: its configuration, as Dockerfile instructions.
    """

    storage_owner: int
    changes: Sequence[str]


OFFICIAL = Shape(0, [*COMMON, 'ENTRYPOINT ["/entrypoint.sh"]', "ENV PATH=/usr/bin:/sbin:/bin"])
BUILT = Shape(65532, [*COMMON, 'ENTRYPOINT ["registry", "serve"]', "ENV PATH=/bin", "USER 65532"])


@contextmanager
def made(engine: DockerClient, shape: Shape) -> Iterator[str]:
    """Create an image of a variant, yield its name, and remove it at the end."""
    repository, tag = f"it-registry-{secrets.token_hex(4)}", "3.1.2"
    engine.api.import_image_from_data(
        _file_system(engine, shape), repository=repository, tag=tag, changes=list(shape.changes)
    )
    name = f"{repository}:{tag}"
    try:
        yield name
    finally:
        with suppress(ImageNotFound):
            engine.images.remove(name, force=True)


def _file_system(engine: DockerClient, shape: Shape) -> bytes:
    container = engine.containers.create(IMAGE)
    try:
        # The type stubs of docker declare text.
        pieces: Any = container.export()
        exported = io.BytesIO(b"".join(pieces))
    finally:
        container.remove(v=True)
    changed = io.BytesIO()
    with tarfile.open(fileobj=exported) as source, tarfile.open(fileobj=changed, mode="w") as tar:
        for member in source:
            if member.name == STORAGE:
                member.uid = member.gid = shape.storage_owner
            if member.name != "entrypoint.sh":
                tar.addfile(member, source.extractfile(member) if member.isreg() else None)
        script = tarfile.TarInfo("entrypoint.sh")
        script.size, script.mode = len(ENTRY_SCRIPT), 0o755
        tar.addfile(script, io.BytesIO(ENTRY_SCRIPT))
    return changed.getvalue()
