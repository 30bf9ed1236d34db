"""The stack of a team on a test bed."""

import base64
import json
import secrets
import ssl
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2

from tests.integration.support import gate, host, http_pull, processes, stack, swarm_belongings
from tests.integration.support.gate import Gate
from tests.integration.support.http_pull import Pulled
from tests.integration.support.polling import eventually
from tests.integration.support.stack import CacheStack
from tests.integration.support.swarm import Host
from tests.integration.support.team_bed import Bed
from tests.integration.support.upstream import Pushed

REGISTRY = "docker.io"
# The name of no DNS server.
UPSTREAM = "upstream.team.test"
# All ports of the hosts are free, but the program checks the port on this machine.
PORT = host.free_port()
READER = "reader"
PLACEMENT: Mapping[str, Any] = {"kind": "swarm", "nodeLabels": {"cache": "true"}}
TIMEOUT_S = 300
SETTLED_AFTER_S = 0.5
SETTLED_WITHIN_S = 60


@dataclass(frozen=True, slots=True)
class Team:
    """A team's stack that is up.

    Attributes:
        bed: its test bed.
        stack: the stack.
        gate: the upstream of its caches, which counts requests.
        password: password of the reader.
        folder: directory for files of clients.
    """

    bed: Bed
    stack: CacheStack
    gate: Gate
    password: str
    folder: Path = field(repr=False)

    def pull(self, host: Host, image: Pushed) -> Pulled:
        """Pull an image through the cache on a host, as the reader."""
        with self.client() as http:
            return http_pull.pull(endpoint(host), image, http)

    def client(self, ca: str = "") -> httpx2.Client:
        """A client with the reader's password that trusts the stack's CA, or another one."""
        return httpx2.Client(
            verify=ssl.create_default_context(cadata=ca or self.stack.outputs()["ca"]),
            auth=(READER, self.password),
            trust_env=False,
            timeout=TIMEOUT_S,
        )

    def settled(self, *pulled: Pulled) -> dict[str, int]:
        """The size of each object in the store, after all writes have ended.

        A cache stores a blob after it has served it, and much later on a busy machine.

        Args:
            pulled: the pulls whose blobs must be stored.
        """
        wanted = [_data(blob) for one in pulled for blob in one.blobs]

        def settled() -> dict[str, int]:
            objects = self.bed.store.objects()
            time.sleep(SETTLED_AFTER_S)
            is_settled = objects and objects == self.bed.store.objects()
            is_whole = all(any(key.endswith(data) for key in objects) for data in wanted)
            # A registry that was killed leaves its uploads behind.
            is_at_rest = bool(wanted) or not any(map(_is_upload, objects))
            return objects if is_settled and is_whole and is_at_rest else {}

        return eventually(settled, within_s=SETTLED_WITHIN_S, what="all writes have ended")

    def hosts_folder(self, then: str = "") -> Path:
        """A `--hosts-dir` for containerd with the caches of all hosts, the CA and the password.

        containerd tries the next host if one does not answer.

        Args:
            then: URL of the registry itself, as the last resort.
        """
        folder = self.folder / f"hosts-{secrets.token_hex(4)}"
        authority = folder / "ca.crt"
        file = folder / REGISTRY / "hosts.toml"
        file.parent.mkdir(parents=True)
        authority.write_text(self.stack.outputs()["ca"])
        credentials = base64.b64encode(f"{READER}:{self.password}".encode()).decode()
        server = f'server = "{then}"\n' if then else ""
        file.write_text(
            server
            + "".join(
                f'[host."{endpoint(host)}"]\n'
                'capabilities = ["pull", "resolve"]\n'
                f'ca = "{authority}"\n'
                f'[host."{endpoint(host)}".header]\n'
                f'authorization = "Basic {credentials}"\n'
                for host in self.bed.hosts
            )
        )
        return folder

    def service(self, name: str = "") -> dict[str, Any]:
        """The result of `docker service inspect`, for its registries or the service of a name."""
        (service,) = json.loads(self.docker("service", "inspect", name or self.registries))
        return dict(service)

    @property
    def fronts(self) -> str:
        """Name of the service that clients reach: the fronts, if it has any."""
        return f"{self.stack.prefix}-docker-io"

    @property
    def registries(self) -> str:
        """Name of the service of the registries behind its fronts."""
        return f"{self.fronts}-registry"

    def containers(self, host: Host, service: str) -> list[str]:
        """IDs of the running containers of a service on a host."""
        label = f"label=com.docker.swarm.service.name={service}"
        return processes.run(
            "docker", "--host", host.engine.host, "ps", "--quiet", "--filter", label
        ).split()

    def docker(self, *arguments: str) -> str:
        """Run a docker command on the manager."""
        return processes.run("docker", "--host", self.bed.manager.engine.host, *arguments)


def _data(digest: str) -> str:
    """The suffix of the key of a blob."""
    return f"/{digest.removeprefix('sha256:')}/data"


def _is_upload(key: str) -> bool:
    return "/_uploads/" in key


def endpoint(host: Host) -> str:
    """URL of the cache on a host."""
    return f"https://{host.address}:{PORT}"


def settings(bed: Bed, remote_url: str, hosts: Sequence[Host] | None = None) -> dict[str, Any]:
    """Settings of a team's stack on a test bed, whose upstream has a name of its own."""
    upstream = urlsplit(remote_url)
    addresses = [host.address for host in hosts or bed.hosts]
    return {
        "placement": PLACEMENT,
        "storage": {
            "kind": "s3",
            "endpoint": bed.store.endpoint,
            "region": bed.store.region,
            "bucket": bed.store.bucket,
        },
        "mirrorHost": addresses[0],
        "publishOn": ["0.0.0.0"],
        "tls": {"kind": "own", "names": addresses},
        "extraHosts": {UPSTREAM: upstream.hostname},
        "upstreams": {REGISTRY: {"port": PORT, "remoteUrl": f"http://{UPSTREAM}:{upstream.port}"}},
    }


@contextmanager
def running(folder: Path, bed: Bed, **more: Mapping[str, Any] | None) -> Iterator[Team]:
    """Bring up a team's stack, and remove it at the end.

    Args:
        folder: existing directory for its files.
        bed: its test bed.
        more: other settings of the caches; None to leave one out.
    """
    password = secrets.token_urlsafe(12)
    with gate.guarding(bed.upstream, "none") as before, bed.manager.engine.client() as engine:
        merged = {**settings(bed, before.url), **more}
        wanted = {key: value for key, value in merged.items() if value is not None}
        with stack.stack(folder, engine, wanted, engine_host=bed.manager.engine.host) as made:
            made.set_secret("s3Keys.accessKey", bed.store.access_key)
            made.set_secret("s3Keys.secretKey", bed.store.secret_key)
            made.set_secret(f"readers.{READER}", password)
            try:
                made.up()
                yield Team(bed, made, before, password, folder)
            finally:
                swarm_belongings.remove(bed.manager.engine.host, made.name)
