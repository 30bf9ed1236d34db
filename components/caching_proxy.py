"""CachingProxy: the pull-through cache of one upstream registry."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Literal

import pulumi
import pulumi_docker as docker

from components import credential_helper, engine
from components import labels as label

CONTAINER_PORT = 5000
STORAGE_FOLDER = "/var/lib/registry"
HEALTHY_WITHIN_S = 60

# `up` waits for the first answer, so the first probes come fast; once the cache is up, a probe
# takes its time, since each one costs the engine a process start. Engines before 25 know only one
# interval for both.
PROBE = (
    f"wget -q -O /dev/null http://127.0.0.1:{CONTAINER_PORT}/v2/ || exit 1; "
    "[ ! -e /dev/shm/up ] || sleep 25; : > /dev/shm/up"
)
PROBE_INTERVAL = "500ms"
PROBE_TIMEOUT = "30s"


@dataclass(frozen=True, slots=True)
class CachingProxyArgs:
    """What a caching proxy is made from.

    Attributes:
        container: name of the container.
        volume: name of the volume that keeps what is cached.
        on_destroy: whether that volume outlives the stack.
        image: ID of the image.
        image_reference: the image as the settings name it.
        remote_url: the upstream's registry API, or None where it is never asked.
        port: port on this machine.
        publish_on: addresses of this machine on which the port is open, in the engine's order.
        mirror_host: address of this machine as nodes see it.
        network: name of the network of the stack's caches.
        credentials: name of the volume with the credential command.
        ttl: how long what is cached is kept, as the registry takes it, or None for ever.
        log_level, log_max_size, log_max_files: logging.
        memory_limit_mib: memory limit in MiB.
        labels: labels of the container and the volume.
    """

    container: str
    volume: str
    on_destroy: Literal["keep", "delete"]
    image: pulumi.Input[str]
    image_reference: str
    remote_url: str | None
    port: int
    publish_on: Sequence[str]
    mirror_host: str
    network: str
    credentials: pulumi.Input[str]
    ttl: str | None
    log_level: str
    log_max_size: str
    log_max_files: int
    memory_limit_mib: int
    labels: Mapping[str, str]


class CachingProxy(pulumi.ComponentResource):
    """A registry that fetches from one upstream what it does not hold, and keeps it.

    It starts and serves what it holds while its upstream is away, and runs without capabilities
    on a read-only root file system, as the user of its image. The volume outlives the container.
    """

    mirror: str
    """URL at which nodes reach it."""

    endpoint: str
    """URL at which this machine reaches it."""

    container: pulumi.Output[str]
    """Name of its container."""

    volume: pulumi.Output[str]
    """Name of the volume that holds what is cached."""

    image: str
    """The image that it runs."""

    def __init__(
        self, name: str, args: CachingProxyArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("talos-registry-cache:caches:CachingProxy", name, {}, opts)
        storage = docker.Volume(
            f"{name}-storage",
            name=args.volume,
            labels=label.inputs(args.labels),
            opts=pulumi.ResourceOptions(
                parent=self,
                retain_on_delete=args.on_destroy == "keep",
                # Those of a volume that was there before; else it would be replaced at every `up`.
                ignore_changes=["driverOpts"],
            ),
        )
        container = self._container(f"{name}-container", args, storage.name)
        nearest = min(args.publish_on, key=_nearness)
        self.mirror = f"http://{args.mirror_host}:{args.port}"
        self.endpoint = f"http://{nearest}:{args.port}"
        self.container = container.name
        self.volume = storage.name
        self.image = args.image_reference
        self.register_outputs({"mirror": self.mirror, **self.described()})

    def described(self) -> Mapping[str, pulumi.Input[str]]:
        """What the stack tells of it."""
        return {
            "endpoint": self.endpoint,
            "container": self.container,
            "volume": self.volume,
            "image": self.image,
        }

    def _container(
        self, name: str, args: CachingProxyArgs, storage: pulumi.Output[str]
    ) -> docker.Container:
        return docker.Container(
            name,
            name=args.container,
            image=args.image,
            labels=label.inputs(args.labels),
            restart="always",
            envs=_environment(args),
            networks_advanced=[docker.ContainerNetworksAdvancedArgs(name=args.network)],
            ports=[
                docker.ContainerPortArgs(internal=CONTAINER_PORT, external=args.port, ip=address)
                for address in args.publish_on
            ],
            volumes=[
                docker.ContainerVolumeArgs(volume_name=storage, container_path=STORAGE_FOLDER),
                docker.ContainerVolumeArgs(
                    volume_name=args.credentials,
                    container_path=credential_helper.FOLDER,
                    read_only=True,
                ),
            ],
            read_only=True,
            capabilities=docker.ContainerCapabilitiesArgs(drops=["ALL"]),
            security_opts=["no-new-privileges"],
            memory=args.memory_limit_mib,
            # Left out, the engine's own value would show as a change after every refresh.
            memory_swap=2 * args.memory_limit_mib,
            log_driver="json-file",
            log_opts={"max-size": args.log_max_size, "max-file": str(args.log_max_files)},
            healthcheck=docker.ContainerHealthcheckArgs(
                tests=["CMD-SHELL", PROBE],
                interval=PROBE_INTERVAL,
                timeout=PROBE_TIMEOUT,
                start_period="0s",
                retries=3,
            ),
            wait=True,
            wait_timeout=HEALTHY_WITHIN_S,
            opts=pulumi.ResourceOptions(
                parent=self,
                delete_before_replace=True,
                # The provider may take a changed health check for an update, and not apply it.
                replace_on_changes=["healthcheck"],
                hooks=pulumi.ResourceHookBinding(before_create=[engine.before_container]),
            ),
        )


def _environment(args: CachingProxyArgs) -> list[str]:
    common = {"OTEL_TRACES_EXPORTER": "none", "REGISTRY_LOG_LEVEL": args.log_level}
    special = _serve_only() if args.remote_url is None else _proxy(args, args.remote_url)
    return [f"{name}={value}" for name, value in sorted((common | special).items())]


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


def _nearness(address: str) -> tuple[bool, str]:
    """Orders addresses by how directly this machine reaches them: loopback first."""
    return not IPv4Address(address).is_loopback, address
