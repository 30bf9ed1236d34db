"""Runs the real registry, distribution 3.1.2, as local processes."""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2

from components.certificate_authority import Issued
from tests.integration.support import host
from tests.unit.registry.support.images import Blob, Built
from toolchain.paths import BIN

READY_WITHIN_S = 60
# The configuration in the image that caches run.
CONFIGURATION = """\
version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage:
  cache: {{blobdescriptor: inmemory}}
  filesystem: {{rootdirectory: {root}}}
http:
  addr: 127.0.0.1:{port}
  debug: {{addr: "127.0.0.1:{debug_port}", prometheus: {{enabled: true}}}}
"""
READ_ONLY = {"REGISTRY_STORAGE_MAINTENANCE": "{readonly: {enabled: true}}"}


@dataclass(frozen=True, slots=True)
class Distribution:
    """A running registry.

    Attributes:
        url: its URL.
        metrics_url: the URL of its metrics.
        root: the folder of its storage.
        process: its process, if known.
    """

    url: str
    metrics_url: str
    root: Path
    process: "subprocess.Popen[bytes] | None" = None

    def push(self, repository: str, tag: str, built: Built) -> None:
        """Push an image."""
        base = f"{self.url}/v2/{repository}"
        for blob in built.blobs:
            self._push_blob(base, blob)
        top, *others = built.manifests
        for manifest, name in [*((other, other.digest) for other in others), (top, tag)]:
            httpx2.put(
                f"{base}/manifests/{name}",
                content=manifest.content,
                headers={"Content-Type": manifest.media_type},
            ).raise_for_status()

    def kill(self) -> None:
        """Kill it, as in a crash."""
        assert self.process
        self.process.kill()
        self.process.wait()

    def pulled_bytes(self) -> int:
        """Bytes of blobs fetched from its upstream, according to its metrics."""
        for line in httpx2.get(self.metrics_url).raise_for_status().text.splitlines():
            if line.startswith('registry_proxy_pulled_bytes_total{type="blob"}'):
                return int(float(line.split()[-1]))
        return 0

    def _push_blob(self, base: str, blob: Blob) -> None:
        upload = httpx2.post(f"{base}/blobs/uploads/").raise_for_status().headers["Location"]
        target = httpx2.URL(upload).copy_merge_params({"digest": blob.digest})
        httpx2.put(target, content=blob.content).raise_for_status()


def program() -> Path | None:
    """The registry's program, which the toolchain builds if no image can be pulled."""
    found = shutil.which("registry", path=BIN) or shutil.which("registry")
    return Path(found) if found else None


@contextmanager
def running(
    root: Path, environment: Mapping[str, str] | None = None, *, scheme: str = "http"
) -> Iterator[Distribution]:
    """Run a registry on a storage."""
    binary = program()
    assert binary
    port, debug_port = host.free_port(), host.free_port()
    root.mkdir(parents=True, exist_ok=True)
    configuration = root.with_name(f"{root.name}-{port}.yml")
    configuration.write_text(CONFIGURATION.format(root=root, port=port, debug_port=debug_port))
    log = root.with_name(f"{root.name}-{port}.log")
    with log.open("wb") as output:
        process = subprocess.Popen(
            [binary, "serve", configuration],
            env={"OTEL_TRACES_EXPORTER": "none", **(environment or {})},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        _wait(port, process, log)
        yield Distribution(
            f"{scheme}://127.0.0.1:{port}", f"http://127.0.0.1:{debug_port}/metrics", root, process
        )
    finally:
        process.terminate()
        process.wait()


@contextmanager
def closed(
    root: Path, certificate: Issued, passwords: str, environment: Mapping[str, str] | None = None
) -> Iterator[Distribution]:
    """Run a registry with TLS and an htpasswd file."""
    root.mkdir(parents=True)
    files = {
        name: root.with_name(f"{root.name}-{name}") for name in ("certificate", "key", "passwords")
    }
    contents = (certificate.certificate, certificate.key, passwords)
    for path, content in zip(files.values(), contents, strict=True):
        path.write_text(content)
    closing = {
        "REGISTRY_HTTP_TLS_CERTIFICATE": str(files["certificate"]),
        "REGISTRY_HTTP_TLS_KEY": str(files["key"]),
        "REGISTRY_AUTH": "htpasswd",
        "REGISTRY_AUTH_HTPASSWD_REALM": "caches",
        "REGISTRY_AUTH_HTPASSWD_PATH": str(files["passwords"]),
    }
    with running(root, closing | dict(environment or {}), scheme="https") as server:
        yield server


def proxy_of(url: str, helper: str = "/bin/true") -> Mapping[str, str]:
    """The environment variables of a cache, as in a stack."""
    return {
        "REGISTRY_PROXY_REMOTEURL": url,
        "REGISTRY_PROXY_EXEC_COMMAND": helper,
        "REGISTRY_PROXY_TTL": "0",
    }


@contextmanager
def caching(
    root: Path,
    upstream: Distribution,
    environment: Mapping[str, str] | None = None,
    helper: str = "/bin/true",
) -> Iterator[Distribution]:
    """Run a cache."""
    with running(root, {**(environment or {}), **proxy_of(upstream.url, helper)}) as cache:
        yield cache


def _wait(port: int, process: "subprocess.Popen[bytes]", log: Path) -> None:
    until = time.monotonic() + READY_WITHIN_S
    while process.poll() is None and time.monotonic() < until:
        try:
            # It listens as soon as it can answer.
            with socket.create_connection(("127.0.0.1", port)):
                return
        except ConnectionError:
            time.sleep(0.02)
    raise AssertionError(f"the registry does not answer at port {port}:\n{log.read_text()}")
