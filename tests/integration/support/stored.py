"""Content in the storage of a cache."""

from docker.models.containers import Container

STORED = "/var/lib/registry/docker/registry/v2"


def path_of(digest: str) -> str:
    """The path of a blob in the container of a registry."""
    name = digest.removeprefix("sha256:")
    return f"{STORED}/blobs/sha256/{name[:2]}/{name}/data"


def damage(registry: Container, digest: str) -> None:
    """Change a few bytes of a blob, as a bad disk does."""
    command = f"printf damaged | busybox dd of={path_of(digest)} bs=1 seek=1000 conv=notrunc"
    code, said = registry.exec_run(["sh", "-c", command])
    assert code == 0, said
