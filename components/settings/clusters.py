"""The settings of a stack's local Talos clusters."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field

from talos_registry_cache.endpoint import Endpoint
from talos_registry_cache.talos.cluster_spec import (
    DEFAULT_CIDR,
    DEFAULT_NODES,
    ClusterSpec,
    Provisioner,
)

from .model import Model
from .values import (
    Argument,
    Cidr,
    Image,
    MemoryOfNode,
    MirrorHost,
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
    """A local cluster, created by `talosctl cluster create`."""

    provisioner: Literal["docker", "qemu", "firecracker"] = Field(
        default="docker",
        description=(
            "Runs nodes as containers (docker) or virtual machines (qemu, or firecracker with "
            "talosctl up to 0.12)"
        ),
    )
    talosctl: Text = Field(default="talosctl", description="Name or path of talosctl")
    controlplanes: Annotated[Count, Field(ge=1)] | None = Field(
        default=None, description="Number of control plane nodes; talosctl's default is 1"
    )
    workers: Annotated[Count, Field(ge=0)] | None = Field(
        default=None, description="Number of workers; talosctl's default is 1"
    )
    cpus: Annotated[float, Field(strict=True, ge=0.01, le=1024, allow_inf_nan=False)] | None = (
        Field(default=None, description="CPUs of each node, such as 2 or 0.5")
    )
    memory: MemoryOfNode | None = Field(default=None, description="Memory of each node, such as 2g")
    cidr: Cidr = Field(
        default=DEFAULT_CIDR,
        description="Network of the nodes; its first address is the gateway",
    )
    talos_version: VersionText | None = Field(
        default=None, description="Version of Talos; the default is the version of talosctl"
    )
    kubernetes_version: VersionText | None = Field(
        default=None, description="Version of Kubernetes; the default is talosctl's default"
    )
    image: Image | None = Field(
        default=None,
        description=(
            "Image of docker nodes; the default is ghcr.io/siderolabs/talos with the version in "
            "`talosVersion`"
        ),
    )
    disks: list[Text] = Field(
        default=[], description="Disks of each virtual machine, such as virtio:10GiB"
    )
    mirrors: dict[RegistryHost, Annotated[bool, Field(strict=True)]] = Field(
        default={},
        description="`false` for each registry not to mirror; the default is to mirror all",
    )
    mirror_host: MirrorHost = Field(
        default="auto",
        description=(
            "Host or address where the nodes reach the caches; `auto` uses `caches.mirrorHost`"
        ),
    )
    skip_fallback: Annotated[bool, Field(strict=True)] = Field(
        default=False,
        description="Whether nodes never fall back to a registry when its mirror fails",
    )
    config_patches: list[Patch] = Field(
        default=[],
        description="Patches of the machine configuration, as mappings or YAML text",
    )
    config_patches_controlplanes: list[Patch] = Field(
        default=[], description="Patches for control plane nodes only"
    )
    config_patches_workers: list[Patch] = Field(default=[], description="Patches for workers only")
    extra_arguments: list[Argument] = Field(
        default=[], description="More arguments for `talosctl cluster create`"
    )
    timeout: Timeout = Field(
        default="20m",
        description="Time limit for creating a cluster; after that, it is removed",
    )
    wait: Literal["healthy", "api", "none"] = Field(
        default="healthy",
        description=(
            "How long `up` waits for a new cluster: until talosctl finds it `healthy`, until the "
            "Kubernetes `api` answers, or only until it boots by itself (`none`)"
        ),
    )
    merge_kubeconfig: Annotated[bool, Field(strict=True)] = Field(
        default=False,
        description="Whether to add the cluster to the user's kubeconfig until it is destroyed",
    )
    on_lost_nodes: Literal["keep", "replace"] = Field(
        default="keep",
        description=(
            "What `up` does if nodes have been removed: `keep` warns, and `replace` replaces the "
            "cluster, which loses etcd and all volumes. Stopped nodes are always started"
        ),
    )

    def spec(self, name: str, mirrors: Mapping[str, Endpoint] | None = None) -> ClusterSpec:
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
