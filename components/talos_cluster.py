"""TalosCluster: one local Talos cluster, whose nodes pull through the caches."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pulumi
import pulumi_docker as docker
import yaml

from talos_registry_cache.talos import command_line
from talos_registry_cache.talos.cluster_files import Places
from talos_registry_cache.talos.cluster_spec import ClusterSpec, Provisioner
from talos_registry_cache.talos.errors import TalosError
from talos_registry_cache.talos.mirror import Mirror

from . import dynamic_provider
from .engine import EngineFacts
from .local_cluster import LocalCluster, find_talosctl, mirrors_with, spec_arguments
from .mirrors import Mirrors, Urls
from .settings import Cluster
from .settings.mistakes import Mistake
from .settings.values import mebibytes, seconds
from .trust import Reader


@dataclass(frozen=True, slots=True)
class TalosClusterArgs:
    """What a local cluster is made from.

    Attributes:
        settings: its settings.
        offered: the mirrors that it can use.
        folder: the folder of the stack's clusters, an absolute path.
    """

    settings: Cluster
    offered: Mirrors
    folder: Path


class TalosCluster(pulumi.ComponentResource):
    """A local cluster, made by `talosctl cluster create` with the mirrors of the stack's caches.

    There is no changing it: what reaches the nodes replaces it. Its client configurations are
    files of its own, and not in the state.
    """

    nodes: pulumi.Output[list[Mapping[str, Any]]]
    """Name, role, address, status and published ports of each node."""

    kubernetes_endpoint: pulumi.Output[str]
    """URL of its Kubernetes API on this machine; empty where it has none."""

    talosconfig: str
    """Path of the client configuration for Talos."""

    kubeconfig: str
    """Path of the client configuration for Kubernetes."""

    command: pulumi.Output[str]
    """The command line that created it, to paste into a shell."""

    guide_line: pulumi.Output[str]
    """The command line as the Talos guide would have a person type it; a preview knows it too."""

    mirrors: pulumi.Output[Urls]
    """The URL of each mirror that its nodes use, by registry host."""

    def __init__(
        self, name: str, args: TalosClusterArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        """Declare a cluster.

        Raises:
            TalosError: there is no talosctl, or it cannot do what is wanted.
        """
        super().__init__("talos-registry-cache:clusters:TalosCluster", name, {}, opts)
        settings = args.settings
        places = Places(args.folder, name)
        self.mirrors = pulumi.Output.from_input(args.offered.mirrors).apply(
            lambda offered: used_mirrors(settings, offered)
        )
        image = [self._node_image(name, args)] if _pulls_image(settings) else []
        made = LocalCluster(
            name,
            folder=args.folder,
            spec=spec_inputs(settings),
            mirrors=self.mirrors,
            trust=args.offered.trust,
            talosctl=settings.talosctl,
            timeout_s=seconds(settings.timeout),
            merge_kubeconfig=settings.merge_kubeconfig,
            on_lost_nodes=settings.on_lost_nodes,
            opts=pulumi.ResourceOptions(
                parent=self, depends_on=[*args.offered.after, *image], delete_before_replace=True
            ),
        )
        self.nodes = made.nodes
        self.kubernetes_endpoint = made.kubernetesEndpoint
        self.talosconfig = str(places.talosconfig)
        self.kubeconfig = str(places.kubeconfig)
        self.command = made.command
        trust = args.offered.trust
        # It names the file that has the password, so that it is no secret itself.
        self.guide_line = pulumi.Output.unsecret(
            pulumi.Output.all(self.mirrors, trust.ca, trust.reader).apply(
                lambda known: guide_line(name, settings, places, mirrors_with(*known))
            )
        )
        self.register_outputs(dict(self.described()))

    def described(self) -> Mapping[str, pulumi.Input[Any]]:
        """What the stack tells of it."""
        return {
            "nodes": self.nodes,
            "kubernetesEndpoint": self.kubernetes_endpoint,
            "talosconfig": self.talosconfig,
            "kubeconfig": self.kubeconfig,
            "command": self.command,
            "guideLine": self.guide_line,
            "mirrors": self.mirrors,
        }

    def _node_image(self, name: str, args: TalosClusterArgs) -> pulumi.Resource:
        """The nodes' image under its own name, pulled through the cache of its registry.

        The engine pulls it and no node does, so that the cluster's mirrors do not count for it.
        """
        image = node_image(name, args.settings)
        child = pulumi.ResourceOptions(parent=self)
        endpoints = pulumi.Output.from_input(args.offered.endpoints)
        provider = None if args.offered.trust.reader is None else _puller(name, args, child)
        pulled = docker.RemoteImage(
            f"{name}-node-image",
            name=endpoints.apply(lambda found: through(image, found)),
            keep_locally=True,
            opts=pulumi.ResourceOptions.merge(
                child, pulumi.ResourceOptions(depends_on=args.offered.after, provider=provider)
            ),
        )
        if _is_pinned(image):
            return pulled
        return docker.Tag(
            f"{name}-node-image-tag", source_image=pulled.name, target_image=image, opts=child
        )


def _puller(name: str, args: TalosClusterArgs, child: pulumi.ResourceOptions) -> docker.Provider:
    """The engine, with the password for the caches; TLS it does not check on loopback."""
    reader = args.offered.trust.inputs()["reader"]
    auths: pulumi.Output[Any] = pulumi.Output.all(args.offered.endpoints, reader).apply(
        lambda known: registry_auths(*known)
    )
    return docker.Provider(
        f"{name}-node-image-puller",
        host=pulumi.Config("docker").get("host"),
        registry_auth=auths,
        opts=child,
    )


def registry_auths(endpoints: Urls, reader: Reader | None) -> list[Mapping[str, str]]:
    """What the Docker provider needs to be let in by the caches; nothing where everybody is."""
    addresses = {urlsplit(url).netloc for url in endpoints.values()} if reader else ()
    return [{"address": address, **(reader or {})} for address in sorted(addresses)]


def mistakes(
    clusters: Mapping[str, Cluster], facts: EngineFacts, folder: Path
) -> Iterator[Mistake]:
    """What is wrong with settings of clusters on this machine, before anything is touched.

    Args:
        clusters: the settings, by the clusters' names.
        facts: what the program has learnt of the engine.
        folder: the folder of the stack's clusters.
    """
    for name, settings in clusters.items():
        try:
            found = find_talosctl(settings.talosctl)
        except TalosError as error:
            yield Mistake(("clusters", name, "talosctl"), str(error))
            continue
        try:
            arguments = spec_arguments(spec_inputs(settings))
            spec = ClusterSpec(name=name, timeout_s=seconds(settings.timeout), **arguments)
            if found:
                command_line.create(spec, found, Places(folder, name))
        except TalosError as error:
            yield Mistake(("clusters", name), str(error))
        # The networks of an engine on which a cluster is never made do not concern it.
        if not dynamic_provider.is_simulated():
            yield from _on_engine(name, settings, facts, folder)


def _on_engine(name: str, settings: Cluster, facts: EngineFacts, folder: Path) -> Iterator[Mistake]:
    yield from _overlaps(name, settings, facts)
    if name in facts.networks and not Places(folder, name).folder.exists():
        text = "a network of this name is on the engine, and not from here; allowed: another"
        yield Mistake(("clusters", name), text)


def _overlaps(name: str, settings: Cluster, facts: EngineFacts) -> Iterator[Mistake]:
    wanted = IPv4Network(settings.cidr)
    for network, found in facts.networks.items():
        # One of the cluster's own name is its own, or `create` says whose it is.
        if network != name and any(wanted.overlaps(IPv4Network(one)) for one in found.subnets):
            text = (
                f"found {settings.cidr}, which overlaps {', '.join(found.subnets)} of the engine's "
                f"network {network}; allowed: a free one, such as 10.6.0.0/24"
            )
            yield Mistake(("clusters", name, "cidr"), text)


def guide_line(name: str, settings: Cluster, places: Places, mirrors: Mapping[str, Mirror]) -> str:
    """The command line that makes a cluster with these mirrors, as the Talos guide writes it."""
    spec = ClusterSpec(name=name, mirrors=mirrors, **spec_arguments(spec_inputs(settings)))
    talosctl = find_talosctl(settings.talosctl)
    return command_line.create(spec, talosctl, places).guide_line() if talosctl else ""


def _pulls_image(settings: Cluster) -> bool:
    """Whether there are nodes that are containers; simulated ones have no image."""
    return settings.provisioner == "docker" and not dynamic_provider.is_simulated()


def used_mirrors(settings: Cluster, offered: Urls) -> Urls:
    """The mirrors that a cluster uses of those that the caches offer, at the address it wants."""
    used = {host: url for host, url in offered.items() if settings.mirrors.get(host, True)}
    if settings.mirror_host == "auto":
        return used
    found = {host: urlsplit(url) for host, url in used.items()}
    return {
        host: f"{url.scheme}://{settings.mirror_host}:{url.port}" for host, url in found.items()
    }


def node_image(name: str, settings: Cluster) -> str:
    """The image of a docker cluster's nodes, by the name that talosctl has for it.

    Raises:
        TalosError: there is no talosctl.
    """
    if settings.image is not None:
        return settings.image
    spec = ClusterSpec(name=name, talos_version=settings.talos_version)
    talosctl = find_talosctl(settings.talosctl)
    assert talosctl is not None  # noqa: S101 - only simulated clusters do without
    return command_line.node_image(command_line.target_version(spec, talosctl.version))


def through(image: str, endpoints: Urls) -> str:
    """An image as it is called at the cache of its registry, or its own name where none is.

    One that is named by its digest keeps its name: the engine gives no such name to another.
    """
    host, _, rest = image.partition("/")
    endpoint = None if _is_pinned(image) else endpoints.get(host)
    return f"{urlsplit(endpoint).netloc}/{rest}" if endpoint else image


def _is_pinned(image: str) -> bool:
    return "@" in image


def spec_inputs(settings: Cluster) -> Mapping[str, Any]:
    """The fields of `ClusterSpec` that settings fill, without those that are not set."""
    fields = {
        "provisioner": Provisioner(settings.provisioner).value,
        "controlplanes": settings.controlplanes,
        "workers": settings.workers,
        "cpus": settings.cpus,
        "memory_mib": mebibytes(settings.memory) if settings.memory else None,
        "cidr": settings.cidr if "cidr" in settings.model_fields_set else None,
        "talos_version": settings.talos_version,
        "kubernetes_version": settings.kubernetes_version,
        "image": settings.image,
        "disks": settings.disks,
        "skip_fallback": settings.skip_fallback,
        "patches": _texts(settings.config_patches),
        "patches_controlplanes": _texts(settings.config_patches_controlplanes),
        "patches_workers": _texts(settings.config_patches_workers),
        "extra_arguments": settings.extra_arguments,
    }
    return {
        key: value
        for key, value in fields.items()
        if value is not None and value is not False and value != []
    }


def _texts(patches: list[Any]) -> list[str]:
    return [
        patch if isinstance(patch, str) else yaml.safe_dump(patch, sort_keys=False)
        for patch in patches
    ]
