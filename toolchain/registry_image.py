"""The registry image that the caches run: pulled if possible, else built from source."""

from pathlib import Path

from toolchain import golang, official_image
from toolchain.official_image import Content

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
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")

# The paths are those of the official image.
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
INSTRUCTIONS = (
    'ENTRYPOINT ["registry", "serve"]',
    'CMD ["/etc/distribution/config.yml"]',
    "VOLUME /var/lib/registry",
    "EXPOSE 5000",
    'LABEL org.opencontainers.image.description="Built from the Go module by talos-registry-cache"',
)


def reference(registry: golang.Program = DEFAULT) -> str:
    """Return the official image of a registry, such as registry:3.1.2."""
    return f"registry:{registry.version.removeprefix('v')}"


def ensure(host: str) -> None:
    """Pull or build the default image."""
    _ensure(host, DEFAULT)


def ensure_older(host: str) -> None:
    """Pull or build the older image."""
    _ensure(host, OLDER)


def _ensure(host: str, registry: golang.Program) -> None:
    official_image.ensure(host, reference(registry), lambda: _from_source(registry))


def _from_source(registry: golang.Program) -> Content:
    return Content(
        programs={"bin/registry": golang.ensure(registry).read_bytes()},
        files={
            "etc/distribution/config.yml": CONFIGURATION,
            "etc/ssl/certs/ca-certificates.crt": CERTIFICATES.read_bytes(),
        },
        # The storage belongs to an unprivileged user, so that the cache needs no root.
        owned=["var/lib/registry"],
        instructions=INSTRUCTIONS,
    )
