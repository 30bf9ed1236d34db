"""The specification of a cluster, independent of talosctl's version."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Network

from talos_registry_cache.endpoint import Endpoint
from talos_registry_cache.talos.errors import SpecError

# Node names are NAME-controlplane-N, and hostnames have 63 characters at most.
LONGEST_NAME = 40
DEFAULT_CIDR = "10.5.0.0/24"
DEFAULT_NODES = 1
DEFAULT_TIMEOUT_S = 20 * 60.0
# The network's own address, its gateway and its broadcast address (gatewayOffset, nodesOffset).
ADDRESSES_NOT_FOR_NODES = 3

# These keep clusters apart, or are set by other settings.
RESERVED_FLAGS = (
    "--name",
    "--provisioner",
    "--registry-mirror",
    "--state",
    "--talosconfig",
    "--talosconfig-destination",
)
INSECURE = "--registry-insecure-skip-verify"


class Provisioner(StrEnum):
    """A provisioner of talosctl, which creates nodes as containers or virtual machines."""

    DOCKER = "docker"
    QEMU = "qemu"
    FIRECRACKER = "firecracker"

    @property
    def is_virtual(self) -> bool:
        """Whether nodes are virtual machines, which only root can create."""
        return self is not Provisioner.DOCKER


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSpec:
    """The specification of a cluster. Fields with their default value add no flag to talosctl.

    Attributes:
        name: name of the cluster.
        provisioner: what creates the nodes.
        controlplanes: number of control plane nodes.
        workers: number of workers.
        cpus: share of CPUs of each node.
        memory_mib: memory of each node, in MiB.
        cidr: IPv4 network of the nodes, whose first address is the gateway.
        talos_version: version of Talos on the nodes, such as `v1.11.5`.
        kubernetes_version: version of Kubernetes, such as `1.34.0`.
        image: image of the nodes (docker only).
        disks: disks of the virtual machines, such as `virtio:10GiB`.
        skip_fallback: whether nodes never pull from a registry itself when its mirror fails.
        patches: patches of the machine configuration of all nodes, as YAML text.
        patches_controlplanes: patches for control plane nodes.
        patches_workers: patches for workers.
        extra_arguments: further arguments of `talosctl cluster create`.
        mirrors: the mirror of each registry host.
        timeout_s: seconds that creating the cluster may take.

    Raises:
        SpecError: no version of talosctl could create this; the message lists all reasons.
    """

    name: str
    provisioner: Provisioner = Provisioner.DOCKER
    controlplanes: int = DEFAULT_NODES
    workers: int = DEFAULT_NODES
    cpus: float | None = None
    memory_mib: int | None = None
    cidr: str = DEFAULT_CIDR
    talos_version: str | None = None
    kubernetes_version: str | None = None
    image: str | None = None
    disks: tuple[str, ...] = ()
    skip_fallback: bool = False
    patches: tuple[str, ...] = ()
    patches_controlplanes: tuple[str, ...] = ()
    patches_workers: tuple[str, ...] = ()
    extra_arguments: tuple[str, ...] = ()
    mirrors: Mapping[str, Endpoint] = field(default_factory=dict)
    timeout_s: float = DEFAULT_TIMEOUT_S

    def __post_init__(self) -> None:
        """Check the name and the mirrors, and the fields against each other."""
        mistakes = [
            *_name_mistakes(self.name),
            *_room_mistakes(self),
            *_argument_mistakes(self),
            *(text for host, one in self.mirrors.items() for text in _mirror_mistakes(host, one)),
        ]
        if mistakes:
            raise SpecError("; ".join(mistakes))

    @property
    def has_closed_mirrors(self) -> bool:
        """Whether a mirror needs a CA or a password."""
        return any(mirror.is_closed for mirror in self.mirrors.values())


def _name_mistakes(name: str) -> Iterator[str]:
    if len(name) > LONGEST_NAME or not re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", name):
        yield (
            f"found the name {name!r}; allowed: up to {LONGEST_NAME} lowercase letters, digits "
            "and dashes, with no dash at either end"
        )


def _room_mistakes(spec: ClusterSpec) -> Iterator[str]:
    room = max(IPv4Network(spec.cidr).num_addresses - ADDRESSES_NOT_FOR_NODES, 0)
    nodes = spec.controlplanes + spec.workers
    if nodes > room:
        yield f"found {nodes} nodes; allowed: up to {room}, which fit into the cidr {spec.cidr}"


def _argument_mistakes(spec: ClusterSpec) -> Iterator[str]:
    flags = {argument.partition("=")[0] for argument in spec.extra_arguments}
    for flag in sorted(flags.intersection(RESERVED_FLAGS)):
        yield f"found the argument {flag}, which is set for you; allowed: any other"
    if INSECURE in flags and any(one.url.startswith("http:") for one in spec.mirrors.values()):
        # Talos's own resolver fails on TLS settings for an endpoint without TLS.
        yield f"found the argument {INSECURE} with a mirror without TLS; allowed: https:// mirrors"


def _mirror_mistakes(host: str, mirror: Endpoint) -> Iterator[str]:
    url = mirror.url
    if not re.fullmatch(r"\*|[A-Za-z0-9.-]+(:\d{1,5})?", host, re.ASCII):
        yield f"found the registry {host!r}; allowed: a host such as quay.io"
    if "@" in url:
        yield f"the URL of the mirror of {host} has credentials, which everyone can see"
    # talosctl splits mirrors at commas.
    elif not re.fullmatch(r"https?://[A-Za-z0-9.-]+(:\d{1,5})?(/[\w./~-]*)?", url, re.ASCII):
        yield f"found the mirror {url!r} of {host}; allowed: an http:// or https:// URL"
    elif mirror.is_closed and not url.startswith("https:"):
        # The password would be sent in plain text, and Talos's own resolver fails on a CA.
        yield f"the mirror {url} of {host} has a CA or password but no TLS; allowed: https://"
