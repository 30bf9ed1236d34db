"""What is wanted of one cluster, the same for every version of talosctl."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Network

from talos_registry_cache.talos.errors import SpecError
from talos_registry_cache.talos.mirror import Mirror
from talos_registry_cache.talos.versions import parse

# Node names are NAME-controlplane-N, and hostnames have 63 characters at most.
LONGEST_NAME = 40
DEFAULT_CIDR = "10.5.0.0/24"
DEFAULT_NODES = 1
# The network's own address, its gateway, and its broadcast address (gatewayOffset, nodesOffset).
ADDRESSES_NOT_FOR_NODES = 3

# Where a cluster is kept is not for its settings to say, and mirrors are set once.
OWN_FLAGS = (
    "--name",
    "--provisioner",
    "--registry-mirror",
    "--state",
    "--talosconfig",
    "--talosconfig-destination",
)
INSECURE = "--registry-insecure-skip-verify"


class Provisioner(StrEnum):
    """What the nodes of a cluster are."""

    DOCKER = "docker"
    QEMU = "qemu"
    FIRECRACKER = "firecracker"

    @property
    def is_virtual(self) -> bool:
        """Whether nodes are virtual machines, which only root can make."""
        return self is not Provisioner.DOCKER


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSpec:
    """What is wanted of one cluster. None, or nothing, leaves it to talosctl's own default.

    Attributes:
        name: the cluster's name.
        provisioner: what its nodes are.
        controlplanes: number of control plane nodes; talosctl's default is 1.
        workers: number of workers; talosctl's default is 1.
        cpus: share of CPUs of each node.
        memory_mib: memory of each node, in MiB.
        cidr: the nodes' IPv4 network, whose first address is the gateway.
        talos_version: version of Talos on the nodes, such as `v1.11.5`.
        kubernetes_version: version of Kubernetes, such as `1.34.0`.
        image: image of the nodes (docker only).
        disks: disks of the virtual machines, such as `virtio:10GiB`.
        mirrors: the mirror of each registry host.
        skip_fallback: whether nodes leave a registry alone when its mirror fails.
        patches: patches of the machine configuration of all nodes, as their text.
        patches_controlplanes: those of control plane nodes only.
        patches_workers: those of workers only.
        extra_arguments: further words of the command line.
        timeout_s: seconds that the creation may take.

    Raises:
        SpecError: something of it makes no sense; the message lists all that does not.
    """

    name: str
    provisioner: Provisioner = Provisioner.DOCKER
    controlplanes: int | None = None
    workers: int | None = None
    cpus: float | None = None
    memory_mib: int | None = None
    cidr: str | None = None
    talos_version: str | None = None
    kubernetes_version: str | None = None
    image: str | None = None
    disks: tuple[str, ...] = ()
    mirrors: Mapping[str, Mirror] = field(default_factory=dict)
    skip_fallback: bool = False
    patches: tuple[str, ...] = ()
    patches_controlplanes: tuple[str, ...] = ()
    patches_workers: tuple[str, ...] = ()
    extra_arguments: tuple[str, ...] = ()
    timeout_s: float | None = None

    def __post_init__(self) -> None:
        """Refuse what no talosctl could make sense of."""
        mistakes = [*_in_names(self), *_in_numbers(self), *_in_mirrors(self), *_in_words(self)]
        if mistakes:
            raise SpecError(f"cluster {self.name}: {'; '.join(mistakes)}")

    @property
    def wanted_nodes(self) -> Mapping[str, int]:
        """The number of nodes, by role."""
        controlplanes = DEFAULT_NODES if self.controlplanes is None else self.controlplanes
        workers = DEFAULT_NODES if self.workers is None else self.workers
        return {"controlplane": controlplanes, "worker": workers}


def _in_names(spec: ClusterSpec) -> Iterator[str]:
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", spec.name) or (
        len(spec.name) > LONGEST_NAME
    ):
        yield (
            f"found the name {spec.name!r}; allowed: up to {LONGEST_NAME} small letters, digits "
            "and dashes, at neither end a dash"
        )
    for key in ("talos_version", "kubernetes_version"):
        version = getattr(spec, key)
        if version is not None and parse(version) is None:
            yield f"found {key} {version!r}; allowed: a version such as v1.11.5"
    if spec.image is not None and not re.fullmatch(r"[a-z0-9][\w./:@-]*", spec.image, re.ASCII):
        yield f"found image {spec.image!r}; allowed: an image reference"


def _in_numbers(spec: ClusterSpec) -> Iterator[str]:
    least = {"controlplanes": 1, "workers": 0, "cpus": 0.01, "memory_mib": 1, "timeout_s": 1}
    for key, lowest in least.items():
        value = getattr(spec, key)
        if value is not None and not lowest <= value < float("inf"):
            yield f"found {key} {value}; allowed: {lowest} or more"
    yield from _in_cidr(spec, spec.cidr or DEFAULT_CIDR)


def _in_cidr(spec: ClusterSpec, cidr: str) -> Iterator[str]:
    try:
        network = IPv4Network(cidr)
    except ValueError as error:
        yield f"found cidr {cidr!r}; allowed: an IPv4 network such as {DEFAULT_CIDR} ({error})"
        return
    room = network.num_addresses - ADDRESSES_NOT_FOR_NODES
    nodes = sum(spec.wanted_nodes.values())
    if nodes > room:
        yield f"found cidr {cidr}, which has room for {max(room, 0)} nodes, and {nodes} are wanted"


def _in_mirrors(spec: ClusterSpec) -> Iterator[str]:
    for host, mirror in spec.mirrors.items():
        url = mirror.url
        if not re.fullmatch(r"\*|[A-Za-z0-9.-]+(:\d{1,5})?", host, re.ASCII):
            yield f"found the registry {host!r}; allowed: a host such as quay.io"
        if "@" in url:
            yield f"the mirror of {host} has credentials in its URL, where everybody can see them"
        # talosctl splits what it is given for mirrors at commas.
        elif not re.fullmatch(r"https?://[A-Za-z0-9.-]+(:\d{1,5})?(/[\w./~-]*)?", url, re.ASCII):
            yield f"found the mirror {url!r} of {host}; allowed: a URL, http:// or https://"
        elif mirror.is_closed and not url.startswith("https:"):
            # A password would be sent in the clear, and Talos's own resolver fails on a CA.
            yield f"the mirror {url} of {host} has a CA or a password and no TLS; allowed: https://"


def _in_words(spec: ClusterSpec) -> Iterator[str]:
    if "" in (*spec.extra_arguments, *spec.disks):
        yield "found an empty word in the arguments"
    for word in spec.extra_arguments:
        flag = word.partition("=")[0]
        if flag in OWN_FLAGS:
            yield f"found the argument {flag}, which is set for you; allowed: any other"
        if flag == INSECURE and any(
            mirror.url.startswith("http:") for mirror in spec.mirrors.values()
        ):
            # Talos's own resolver fails on TLS settings of an endpoint that has no TLS.
            yield f"found the argument {INSECURE} with a mirror that has no TLS; allowed: https://"
