"""CachingProxy: the pull-through cache of one upstream registry."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pulumi

from . import credential_helper
from .placement import (
    CONTAINER_PORT,
    METRICS_PORT,
    MountedFiles,
    Placement,
    Process,
)
from .settings.caches import Logs
from .settings.values import mebibytes
from .storage import Storage, Stored

# `up` waits for the first answer, so the first probes come fast; once the cache is up, a probe
# takes its time, since each one costs the engine a process start. Engines before 25 know only one
# interval for both.
PROBE = "wget -q -O /dev/null {url} || exit 1; [ ! -e /dev/shm/up ] || sleep 25; : > /dev/shm/up"
PLAIN_URL = f"http://127.0.0.1:{CONTAINER_PORT}/v2/"
# Where the registry itself is closed: it has no certificate for this address, and asks who comes.
CLOSED_URL = f"http://127.0.0.1:{METRICS_PORT}/debug/health"


@dataclass(frozen=True, slots=True)
class CachingProxyArgs:
    """What a caching proxy is made from.

    Attributes:
        name: name of its container or service.
        storage: where it keeps what is cached.
        placement: where it runs.
        image: ID of the image.
        image_reference: the image as the settings name it.
        remote_url: the registry API that it asks, or None where none is ever asked.
        mirror: URL at which nodes reach it.
        endpoint: URL at which this machine reaches it.
        port: the port of both.
        files: its private files.
        access: what the registry has to be told of who may use it; empty for everyone.
        trust: what it has to be told of whom it trusts.
        ttl: how long what is cached is kept, as the registry takes it, or None for ever.
        logs: logging.
        memory_limit: memory limit, as the settings have it.
        labels: labels of all that is the cache's.
        marks: more labels of its process.
    """

    name: str
    storage: Storage
    placement: Placement
    image: pulumi.Input[str]
    image_reference: str
    remote_url: str | None
    mirror: str
    endpoint: str
    port: int
    files: MountedFiles
    access: Mapping[str, str]
    trust: Mapping[str, str]
    ttl: str | None
    logs: Logs
    memory_limit: str
    labels: Mapping[str, str]
    marks: Mapping[str, pulumi.Input[Any]]


class CachingProxy(pulumi.ComponentResource):
    """A registry that fetches from one upstream what it does not hold, and keeps it.

    It starts and serves what it holds while its upstream is away, and runs without capabilities
    on a read-only root file system, as a user that is not root. What is cached outlives it.
    """

    mirror: str
    """URL at which nodes reach it."""

    endpoint: str
    """URL at which this machine reaches it."""

    name: pulumi.Output[str]
    """Name of its container or service, once it answers."""

    storage: pulumi.Output[str]
    """Where what is cached is: the name of a volume, or a place in an object store."""

    image: str
    """The image that it runs."""

    def __init__(
        self, name: str, args: CachingProxyArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("talos-registry-cache:caches:CachingProxy", name, {}, opts)
        stored = args.storage.declare(name, args.labels, self)
        process = Process(
            name=args.name,
            image=args.image,
            image_reference=args.image_reference,
            environment={**_environment(args), **stored.environment},
            stored=stored,
            port=args.port,
            probe=_probe(args, stored),
            log_max_size=args.logs.max_size,
            log_max_files=args.logs.max_files,
            memory_limit_mib=mebibytes(args.memory_limit),
            labels={**args.labels, **args.marks},
        )
        self.mirror = args.mirror
        self.endpoint = args.endpoint
        self.name = args.placement.run(name, process, args.files, self)
        self.storage = stored.name
        self.image = args.image_reference
        self.register_outputs({"mirror": self.mirror, **self.described()})

    def described(self) -> Mapping[str, pulumi.Input[str]]:
        """What the stack tells of it."""
        return {
            "endpoint": self.endpoint,
            "name": self.name,
            "storage": self.storage,
            "image": self.image,
        }


def _probe(args: CachingProxyArgs, stored: Stored) -> str:
    answers = PROBE.format(url=CLOSED_URL if args.access else PLAIN_URL)
    # One that serves only has nothing to write.
    return answers if args.remote_url is None else stored.probe + answers


def _environment(args: CachingProxyArgs) -> dict[str, str]:
    common = {"OTEL_TRACES_EXPORTER": "none", "REGISTRY_LOG_LEVEL": args.logs.level}
    special = _serve_only() if args.remote_url is None else _proxy(args, args.remote_url)
    return {**common, **special, **args.access, **args.trust}


def _serve_only() -> dict[str, str]:
    # Not …_READONLY_ENABLED, which makes distribution 3.1 panic.
    return {"REGISTRY_STORAGE_MAINTENANCE": "{readonly: {enabled: true}}"}


def _proxy(args: CachingProxyArgs, remote_url: str) -> dict[str, str]:
    variables = {
        "REGISTRY_PROXY_REMOTEURL": remote_url,
        "REGISTRY_PROXY_TTL": args.ttl or "0",
        "REGISTRY_PROXY_EXEC_COMMAND": credential_helper.COMMAND,
        # Not kept, so that a changed password counts from the next request on.
        "REGISTRY_PROXY_EXEC_LIFETIME": "0s",
        # 5 minutes by default, too short for a large layer over a slow link.
        "REGISTRY_PROXY_CACHEWRITETIMEOUT": "1h",
    }
    if args.ttl:
        # What has expired is deleted only where deleting is allowed.
        variables["REGISTRY_STORAGE_DELETE_ENABLED"] = "true"
    return variables
