"""Runs MinIO, an S3 store, as a local process."""

import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2

from talos_registry_cache.registry.s3_location import S3Credentials, S3Location
from tests.integration.support import host
from toolchain.paths import BIN

BUCKET = "caches"
READY_WITHIN_S = 60


def program() -> Path | None:
    """MinIO's program, which the toolchain builds for the tests."""
    found = shutil.which("minio", path=BIN) or shutil.which("minio")
    return Path(found) if found else None


@contextmanager
def running(folder: Path) -> Iterator[tuple[S3Location, S3Credentials]]:
    """Run a store with an empty bucket.

    Yields:
        A location in it, and the credentials of its one account.
    """
    binary = program()
    assert binary
    # MinIO's buckets are the folders of its drive.
    (folder / "drive" / BUCKET).mkdir(parents=True)
    credentials = S3Credentials(secrets.token_hex(8), secrets.token_urlsafe(24))
    settings = folder / "minio.env"
    settings.touch(mode=0o600)
    settings.write_text(
        f"MINIO_ROOT_USER={credentials.access_key}\nMINIO_ROOT_PASSWORD={credentials.secret_key}\n"
        "MINIO_BROWSER=off\nMINIO_UPDATE=off\n"
    )
    address = f"127.0.0.1:{host.free_port()}"
    log = folder / "minio.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [binary, "server", "--address", address, folder / "drive"],
            env=os.environ | {"MINIO_CONFIG_ENV_FILE": str(settings)},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        url = f"http://{address}"
        _wait(url, process, log)
        yield S3Location(BUCKET, "team/docker.io", endpoint=url), credentials
    finally:
        process.terminate()
        process.wait()


def _wait(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    until = time.monotonic() + READY_WITHIN_S
    while process.poll() is None and time.monotonic() < until:
        try:
            if httpx2.get(f"{url}/minio/health/ready", trust_env=False).is_success:
                return
        except httpx2.TransportError:
            time.sleep(0.05)
    raise AssertionError(f"MinIO does not answer at {url}:\n{log.read_text()}")
