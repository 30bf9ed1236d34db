"""An S3 object store: MinIO in its own network namespace."""

import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import httpx2
from botocore.config import Config
from botocore.session import Session

from tests.integration.support import network, processes, slow_wire
from tests.integration.support.network import Link
from tests.integration.support.polling import eventually

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

PROGRAM = "minio"
PORT = 9000
START_WITHIN_S = 60
STOP_WITHIN_S = 150
WIRE_ENDS = ("slow0", "slow1")


class ObjectStore:
    """An object store with one bucket.

    Attributes:
        endpoint: its URL.
        region: region of request signatures.
        bucket: the bucket, which exists from the start.
        access_key, secret_key: keys of its only account.
        link: its link to the hosts, which can be cut and limited.
    """

    def __init__(self, folder: Path, link: Link) -> None:
        self.endpoint = f"http://{link.address}:{PORT}"
        self.region = "us-east-1"
        self.bucket = "caches"
        self.access_key = secrets.token_hex(8)
        self.secret_key = secrets.token_urlsafe(24)
        self.link = link
        self._folder = folder
        self._data = folder / "data"
        self._process: subprocess.Popen[bytes] | None = None
        # MinIO's buckets are the directories of its drive.
        (self._data / self.bucket).mkdir(parents=True)
        self._settings = folder / "minio.env"
        self._settings.touch(mode=0o600)
        self._settings.write_text(
            f"MINIO_ROOT_USER={self.access_key}\nMINIO_ROOT_PASSWORD={self.secret_key}\n"
            "MINIO_BROWSER=off\nMINIO_UPDATE=off\n"
        )

    def start(self) -> None:
        """Start the store and wait until it answers."""
        with (self._folder / "minio.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *network.enter(self.link.namespace),
                    PROGRAM, "server", "--address", f"{self.link.address}:{PORT}", self._data,
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | {"MINIO_CONFIG_ENV_FILE": str(self._settings)},
                start_new_session=True,
            )  # fmt: skip
        eventually(self._answers, within_s=START_WITHIN_S, what="the object store answers")

    def stop(self) -> None:
        """Stop the store: connections are refused. The objects are kept."""
        assert self._process is not None
        self._process.terminate()
        self._process.wait(STOP_WITHIN_S)

    def kill(self) -> None:
        """Kill the store, as a crash does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(STOP_WITHIN_S)

    @contextmanager
    def slow(self, delay_s: float) -> Iterator[None]:
        """Delay each answer, also on open connections."""
        switch, port = self.link.switch, self.link.port
        ip = ("ip", "-netns", switch, "link")
        near, far = WIRE_ENDS
        processes.run(*ip, "add", near, "type", "veth", "peer", "name", far)
        try:
            processes.run(*ip, "set", near, "up")
            processes.run(*ip, "set", far, "master", network.BRIDGE, "up")
            with _wire(switch, port, near, delay_s / 2):
                processes.run(*ip, "set", port, "nomaster")
                yield
        finally:
            processes.run(*ip, "set", port, "master", network.BRIDGE)
            processes.run(*ip, "delete", near)

    def objects(self, prefix: str = "") -> dict[str, int]:
        """The size of each object in the bucket, by its key."""
        pages = (
            self.client()
            .get_paginator("list_objects_v2")
            .paginate(Bucket=self.bucket, Prefix=prefix)
        )
        return {one["Key"]: one["Size"] for page in pages for one in page.get("Contents", ())}

    def client(self) -> "S3Client":
        """A client of the store."""
        client: Any = Session().create_client(
            "s3",
            endpoint_url=self.endpoint,
            region_name=self.region,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            config=Config(s3={"addressing_style": "path"}),
        )
        return cast("S3Client", client)

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            log = (self._folder / "minio.log").read_text()
            raise ChildProcessError(f"the object store ended:\n{log[-3000:]}")
        try:
            url = f"{self.endpoint}/minio/health/ready"
            return httpx2.get(url, trust_env=False, timeout=2).is_success
        except httpx2.TransportError:
            return False


@contextmanager
def installed(folder: Path, link: Link) -> Iterator[ObjectStore]:
    """Prepare a store without starting it, and remove it with all objects at the end.

    Args:
        folder: directory of its files; is created.
        link: link of its namespace.
    """
    store = ObjectStore(folder, link)
    try:
        yield store
    finally:
        store.kill()
        shutil.rmtree(folder)


@contextmanager
def _wire(namespace: str, first: str, second: str, delay_s: float) -> Iterator[None]:
    program = [sys.executable, slow_wire.__file__, first, second, str(delay_s)]
    with subprocess.Popen(
        [*network.enter(namespace), *program], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    ) as wire:
        try:
            assert wire.stdout is not None
            assert wire.stdout.readline(), "the slow wire has ended"
            yield
        finally:
            wire.kill()


def why_impossible() -> str:
    """Why an object store cannot run here; empty if it can."""
    return "" if shutil.which(PROGRAM) else f"{PROGRAM} is not on PATH: `make test` builds it"
