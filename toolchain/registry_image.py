"""The registry image that the caches run: pulled if possible, else built from source."""

import io
import tarfile
from pathlib import Path

from toolchain import debian, engine, golang, layer
from toolchain.report import SetupError, say, step

MODULE = "github.com/distribution/distribution/v3"
DEFAULT, OLDER = (
    golang.Program(
        name=name,
        package=f"{MODULE}/cmd/registry",
        module=MODULE,
        version_symbol=f"{MODULE}/version.version",
    )
    for name in ("registry", "registry-3.0")
)
REPOSITORY = "registry"
# A name of its own, since the built image differs from the official one, such as in its user.
BUILT_REPOSITORY = f"talos-registry-cache/{REPOSITORY}"
PULL_TIMEOUT_S = 60
BUSYBOX_PACKAGE = "busybox-static"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
USER = 65532

# The paths are those of the official image. The storage belongs to an unprivileged user, so that
# the cache needs no root.
CONFIGURATION = b"""\
version: 0.1
log:
  fields: {service: registry}
storage:
  cache: {blobdescriptor: inmemory}
  filesystem: {rootdirectory: /var/lib/registry}
http:
  addr: :5000
  debug:
    addr: :5001
    prometheus: {enabled: true, path: /metrics}
health:
  storagedriver: {enabled: true, interval: 10s, threshold: 3}
"""
LABEL = (
    "org.opencontainers.image.description",
    "built-from-the-go-module-by-talos-registry-cache",
)
CHANGES = [
    f"USER {USER}",
    'ENTRYPOINT ["registry", "serve"]',
    'CMD ["/etc/distribution/config.yml"]',
    "ENV PATH=/bin",
    "VOLUME /var/lib/registry",
    "EXPOSE 5000",
    "LABEL {}={}".format(*LABEL),
]
DIRECTORIES = {
    "bin": 0, "dev": 0, "etc": 0, "etc/distribution": 0, "etc/ssl": 0, "etc/ssl/certs": 0,
    "proc": 0, "sys": 0, "tmp": 0, "var": 0, "var/lib": 0, "var/lib/registry": USER,
}  # fmt: skip
APPLETS = ("cat", "sh", "sleep", "test", "wget")


def reference(registry: golang.Program = DEFAULT) -> str:
    """Return the official image of a registry, such as registry:3.1.2."""
    return f"{REPOSITORY}:{_tag(registry)}"


def built_reference(registry: golang.Program = DEFAULT) -> str:
    """Return the name of the image that is built if the official one cannot be pulled."""
    return f"{BUILT_REPOSITORY}:{_tag(registry)}"


def ensure(host: str, stack_file: str = "") -> None:
    """Pull or build the default image, and the older one if a stack file uses it.

    Pulumi pulls any other image.
    """
    _ensure(host, DEFAULT)
    if reference(OLDER) in stack_file:
        _ensure(host, OLDER)


def ensure_all(host: str) -> None:
    """Pull or build both images."""
    for registry in (DEFAULT, OLDER):
        _ensure(host, registry)


def _ensure(host: str, registry: golang.Program) -> None:
    image, tag = reference(registry), _tag(registry)
    built = built_reference(registry)
    if engine.has_image(host, built) or engine.has_image(host, image):
        return
    with step(f"registry image {image}: pull"):
        try:
            engine.pull_image(host, REPOSITORY, tag, timeout_s=PULL_TIMEOUT_S)
        except OSError as error:
            problem = str(error)
        else:
            return
    say(f"    cannot be pulled ({problem}), so {built} is built and used instead")
    content = _layer(golang.ensure(registry), _busybox())
    with step(f"registry image {built}: load"):
        engine.import_image(host, content, BUILT_REPOSITORY, tag, CHANGES)


def _tag(registry: golang.Program) -> str:
    return registry.version.removeprefix("v")


def _layer(registry: Path, busybox: Path) -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, owner in DIRECTORIES.items():
            layer.add_folder(tar, name, owner=owner)
        for name, content, mode in _files(registry, busybox):
            layer.add_file(tar, name, content, mode)
        for applet in APPLETS:
            layer.add_link(tar, f"bin/{applet}", "busybox")
    return archive.getvalue()


def _files(registry: Path, busybox: Path) -> list[tuple[str, bytes, int]]:
    users = f"root:x:0:0::/:/bin/sh\nregistry:x:{USER}:{USER}::/:/bin/sh\n"
    return [
        ("bin/registry", registry.read_bytes(), 0o755),
        ("bin/busybox", busybox.read_bytes(), 0o755),
        ("etc/distribution/config.yml", CONFIGURATION, 0o644),
        ("etc/passwd", users.encode(), 0o644),
        ("etc/ssl/certs/ca-certificates.crt", CERTIFICATES.read_bytes(), 0o644),
    ]


def _busybox() -> Path:
    """Return a static busybox, the shell and wget of the health check."""
    try:
        return debian.unpacked(BUSYBOX_PACKAGE) / "bin" / "busybox"
    except SetupError as error:
        raise SetupError(
            f"{reference()} cannot be pulled, and it cannot be built here: {error}\n"
            f"Copy it from another machine: docker save {reference()} | docker load"
        ) from error
