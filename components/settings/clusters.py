"""The settings of a stack's local Talos clusters."""

from collections.abc import Iterator, Mapping
from ipaddress import IPv4Network
from itertools import combinations
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field

from talos_registry_cache.talos.cluster_spec import (
    DEFAULT_CIDR,
    DEFAULT_NODES,
    ClusterSpec,
    Provisioner,
)
from talos_registry_cache.talos.mirror import Mirror

from .mistakes import Mistake
from .values import (
    Argument,
    Cidr,
    Image,
    MemoryOfNode,
    MirrorHost,
    Model,
    Patch,
    RegistryHost,
    Text,
    Timeout,
    VersionText,
    mebibytes,
    seconds,
)

Count = Annotated[int, Field(strict=True, le=1000)]


class Cluster(Model):
    """One local cluster, as `talosctl cluster create` makes it."""

    provisioner: Literal["docker", "qemu", "firecracker"] = Field(
        default="docker",
        description=(
            "What the nodes are: containers (docker) or virtual machines (qemu; firecracker with "
            "talosctl up to 0.12)"
        ),
    )
    talosctl: Text = Field(default="talosctl", description="Path of talosctl, or its name on PATH")
    controlplanes: Annotated[Count, Field(ge=1)] | None = Field(
        default=None, description="Number of control plane nodes; talosctl's default is 1"
    )
    workers: Annotated[Count, Field(ge=0)] | None = Field(
        default=None, description="Number of workers; talosctl's default is 1"
    )
    cpus: Annotated[float, Field(strict=True, ge=0.01, le=1024, allow_inf_nan=False)] | None = (
        Field(default=None, description="Share of CPUs of each node")
    )
    memory: MemoryOfNode | None = Field(default=None, description="Memory of each node, such as 2g")
    cidr: Cidr = Field(
        default=DEFAULT_CIDR,
        description="Network of the nodes, whose first address is the gateway",
    )
    talos_version: VersionText | None = Field(
        default=None, description="Version of Talos on the nodes; the default is talosctl's own"
    )
    kubernetes_version: VersionText | None = Field(
        default=None, description="Version of Kubernetes; the default is talosctl's own"
    )
    image: Image | None = Field(
        default=None,
        description=(
            "Image of the nodes (docker); the default is ghcr.io/siderolabs/talos in the version "
            "of talosVersion, or of talosctl"
        ),
    )
    disks: list[Text] = Field(
        default=[], description="Disks of each virtual machine, such as virtio:10GiB"
    )
    mirrors: dict[RegistryHost, Annotated[bool, Field(strict=True)]] = Field(
        default={},
        description="false leaves the mirror of a registry out; all that the stack has are used",
    )
    mirror_host: MirrorHost = Field(
        default="auto",
        description=(
            "Address at which the nodes reach the caches; `auto` is that of `caches.mirrorHost`"
        ),
    )
    skip_fallback: Annotated[bool, Field(strict=True)] = Field(
        default=False,
        description="Whether nodes leave a registry itself alone when its mirror fails",
    )
    config_patches: list[Patch] = Field(
        default=[], description="Patches of all nodes' machine configuration, as YAML or its text"
    )
    config_patches_controlplanes: list[Patch] = Field(
        default=[], description="Patches of control plane nodes' machine configuration"
    )
    config_patches_workers: list[Patch] = Field(
        default=[], description="Patches of workers' machine configuration"
    )
    extra_arguments: list[Argument] = Field(
        default=[], description="Further arguments of `talosctl cluster create`"
    )
    timeout: Timeout = Field(
        default="20m", description="How long creating it may take before it is undone"
    )
    merge_kubeconfig: Annotated[bool, Field(strict=True)] = Field(
        default=False,
        description="Whether its context is in the user's own kubeconfig as well, until destroy",
    )
    on_lost_nodes: Literal["keep", "replace"] = Field(
        default="keep",
        description=(
            "What `up` does when some of the nodes no longer exist: keep the others and warn, or "
            "replace the cluster, which loses etcd and all volumes. Stopped nodes are started"
        ),
    )

    def spec(self, name: str, mirrors: Mapping[str, Mirror] | None = None) -> ClusterSpec:
        """The specification of a cluster with these settings.

        Args:
            name: its name.
            mirrors: the mirror of each registry host, once they are known.

        Raises:
            SpecError: no talosctl could create it.
        """
        return ClusterSpec(
            name=name,
            provisioner=Provisioner(self.provisioner),
            controlplanes=self.controlplanes or DEFAULT_NODES,
            workers=DEFAULT_NODES if self.workers is None else self.workers,
            cpus=self.cpus,
            memory_mib=mebibytes(self.memory) if self.memory else None,
            cidr=self.cidr,
            talos_version=self.talos_version,
            kubernetes_version=self.kubernetes_version,
            image=self.image,
            disks=tuple(self.disks),
            skip_fallback=self.skip_fallback,
            patches=_texts(self.config_patches),
            patches_controlplanes=_texts(self.config_patches_controlplanes),
            patches_workers=_texts(self.config_patches_workers),
            extra_arguments=tuple(self.extra_arguments),
            mirrors=mirrors or {},
            timeout_s=seconds(self.timeout),
        )


def _texts(patches: list[Any]) -> tuple[str, ...]:
    return tuple(
        patch if isinstance(patch, str) else yaml.safe_dump(patch, sort_keys=False)
        for patch in patches
    )


def clusters_as_written(clusters: Any) -> dict[str, Mapping[str, Any]]:
    """The clusters of settings that may have mistakes: those that are mappings."""
    if not isinstance(clusters, Mapping):
        return {}
    written = {name: {} if cluster is None else cluster for name, cluster in clusters.items()}
    return {name: one for name, one in written.items() if isinstance(one, Mapping)}


def across_clusters(clusters: Mapping[str, Mapping[str, Any]]) -> Iterator[Mistake]:
    """What is wrong with clusters taken together: networks that overlap."""
    networks = {name: _network(cluster) for name, cluster in clusters.items()}
    for (first, one), (second, other) in combinations(networks.items(), 2):
        if one and other and one.overlaps(other):
            allowed = "a network of its own, such as 10.6.0.0/24"
            text = f"found {other}, which overlaps {one} of {first}; allowed: {allowed}"
            yield Mistake(("clusters", second, "cidr"), text)


def in_mirrors(
    clusters: Mapping[str, Mapping[str, Any]], upstreams: Mapping[str, Any]
) -> Iterator[Mistake]:
    """Mirrors that clusters name and the stack's caches do not have."""
    for name, cluster in clusters.items():
        mirrors = cluster.get("mirrors")
        for host in mirrors if isinstance(mirrors, Mapping) else {}:
            if host not in upstreams:
                text = f"found, but this stack has no cache of it; allowed: {', '.join(upstreams)}"
                yield Mistake(("clusters", name, "mirrors", host), text)


def _network(cluster: Mapping[str, Any]) -> IPv4Network | None:
    try:
        # As a text: a number would be taken for an address.
        return IPv4Network(str(cluster.get("cidr", Cluster.model_fields["cidr"].default)))
    except ValueError:
        return None
