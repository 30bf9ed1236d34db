"""TalosCluster: a local Talos cluster whose nodes pull through the caches."""

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pulumi
import pulumi_docker as docker

from talos_registry_cache.endpoint import ALL_REGISTRIES, Endpoint
from talos_registry_cache.talos import command_line, versions
from talos_registry_cache.talos.cluster_files import ClusterFiles
from talos_registry_cache.talos.command_line import Invocation
from talos_registry_cache.talos.errors import TalosError
from talos_registry_cache.talos.versions import Talosctl, VersionError

from . import dynamic_provider
from .engine import EngineFacts
from .local_cluster import LocalCluster
from .mirrors import Mirrors, Urls
from .settings import Cluster
from .settings.mistakes import Mistake
from .trust import Reader


@dataclass(frozen=True, slots=True)
class TalosClusterArgs:
    """Arguments of a local cluster.

    Attributes:
        settings: its settings.
        mirrors: the mirrors that it may use.
        folder: the folder of the stack's clusters, an absolute path.
    """

    settings: Cluster
    mirrors: Mirrors
    folder: Path


class TalosCluster(pulumi.ComponentResource):
    """A local cluster, created by `talosctl cluster create` with the mirrors of the stack's caches.

    A change that reaches the nodes replaces the cluster. Its client configurations are files, and
    not in the state.
    """

    nodes: pulumi.Output[list[Mapping[str, Any]]]
    """Name, role, address, status and published ports of each node."""

    kubernetes_endpoint: pulumi.Output[str]
    """URL of the Kubernetes API on this machine; empty if there is none."""

    talosconfig: str
    """Path of the client configuration for Talos."""

    kubeconfig: str
    """Path of the client configuration for Kubernetes."""

    command: pulumi.Output[str]
    """The command line that created the cluster, to paste into a shell."""

    guide_line: pulumi.Output[str]
    """The command line as the Talos guide has it, for a cluster of the user's own."""

    mirrors: pulumi.Output[Urls]
    """The URL of each mirror that the nodes use, by registry host."""

    def __init__(
        self, name: str, args: TalosClusterArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        """Declare a cluster.

        Raises:
            TalosError: talosctl is missing, or cannot create the cluster.
        """
        super().__init__("talos-registry-cache:clusters:TalosCluster", name, {}, opts)
        settings = args.settings
        trust = args.mirrors.trust.inputs()
        files = ClusterFiles(args.folder, name)
        self.mirrors = pulumi.Output.from_input(args.mirrors.mirrors).apply(
            lambda urls: used_mirrors(settings, urls)
        )
        planned = pulumi.Output.all(self.mirrors, trust["ca"], trust["reader"]).apply(
            lambda known: _plan_or_run_error(name, settings, args.folder, mirrors_with(*known))
        )
        image = [self._node_image(name, args)] if _has_node_image(settings) else []
        created = LocalCluster(
            name,
            settings=settings,
            folder=args.folder,
            mirrors=self.mirrors,
            trust=args.mirrors.trust,
            plan=planned,
            opts=pulumi.ResourceOptions(
                parent=self, depends_on=[*args.mirrors.after, *image], delete_before_replace=True
            ),
        )
        self.nodes = created.nodes
        self.kubernetes_endpoint = created.kubernetesEndpoint
        self.talosconfig = str(files.talosconfig)
        self.kubeconfig = str(files.kubeconfig)
        self.command = created.command
        # A password for the mirrors makes the plan a secret, but is in its files alone.
        self.guide_line = pulumi.Output.unsecret(planned).apply(
            lambda known: known.guide_line() if known else ""
        )
        self.register_outputs(dict(self.described()))

    def described(self) -> Mapping[str, pulumi.Input[Any]]:
        """The outputs, by the names that the stack exports."""
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
        """Pull the nodes' image through the cache of its registry, and tag it with its own name.

        The engine pulls it, not a node, so this does not depend on the cluster's mirrors.
        """
        image = node_image(name, args.settings)
        child = pulumi.ResourceOptions(parent=self)
        endpoints = pulumi.Output.from_input(args.mirrors.endpoints)
        provider = None if args.mirrors.trust.reader is None else _puller(name, args, child)
        pulled = docker.RemoteImage(
            f"{name}-node-image",
            name=endpoints.apply(lambda urls: through_cache(image, urls)),
            keep_locally=True,
            opts=pulumi.ResourceOptions.merge(
                child, pulumi.ResourceOptions(depends_on=args.mirrors.after, provider=provider)
            ),
        )
        if _has_digest(image):
            return pulled
        return docker.Tag(
            f"{name}-node-image-tag", source_image=pulled.name, target_image=image, opts=child
        )


def mistakes(
    clusters: Mapping[str, Cluster], facts: EngineFacts, folder: Path
) -> Iterator[Mistake]:
    """Find settings of clusters that this machine cannot satisfy, before anything is changed.

    Args:
        clusters: the settings, by cluster name.
        facts: facts about the engine.
        folder: the folder of the stack's clusters.
    """
    for name, settings in clusters.items():
        try:
            plan(name, settings, folder)
        except VersionError as error:
            yield Mistake(("clusters", name, "talosctl"), str(error))
        except TalosError as error:
            yield Mistake(("clusters", name), str(error))
        # A simulated cluster does not use the engine's networks.
        if not dynamic_provider.is_simulated():
            yield from _network_mistakes(name, settings, facts, folder)


def plan(
    name: str, settings: Cluster, folder: Path, mirrors: Mapping[str, Endpoint] | None = None
) -> Invocation | None:
    """Plan the run of talosctl that creates a cluster.

    Args:
        name: name of the cluster.
        settings: its settings.
        folder: the folder of the stack's clusters.
        mirrors: the mirror of each registry host, once they are known.

    Returns:
        The plan; None for a simulated cluster without talosctl.

    Raises:
        TalosError: talosctl is missing, or cannot create the cluster.
    """
    spec = settings.spec(name, mirrors)
    talosctl = find_talosctl(settings.talosctl)
    return command_line.create(spec, talosctl, ClusterFiles(folder, name)) if talosctl else None


@functools.cache
def find_talosctl(program: str) -> Talosctl | None:
    """Find talosctl, once for each program; None if it is missing and clusters are simulated.

    Raises:
        VersionError: it is missing, or cannot be used.
    """
    try:
        return versions.find(program)
    except VersionError:
        if dynamic_provider.is_simulated():
            return None
        raise


def node_image(name: str, settings: Cluster) -> str:
    """The image of a docker cluster's nodes.

    Raises:
        TalosError: talosctl is missing.
    """
    talosctl = find_talosctl(settings.talosctl)
    assert talosctl is not None  # noqa: S101 - only simulated clusters do without
    return command_line.node_image(settings.spec(name), talosctl.version)


def used_mirrors(settings: Cluster, urls: Urls) -> Urls:
    """Select the mirrors that a cluster uses, at the address that its settings name."""
    used = {host: url for host, url in urls.items() if settings.mirrors.get(host, True)}
    if not all(settings.mirrors.values()):
        # It would be the mirror of these registries, too.
        used.pop(ALL_REGISTRIES, None)
    if settings.mirror_host == "auto":
        return used
    parts = {host: urlsplit(url) for host, url in used.items()}
    return {
        host: f"{url.scheme}://{settings.mirror_host}:{url.port}" for host, url in parts.items()
    }


def mirrors_with(urls: Urls, ca: str | None, reader: Reader | None) -> Mapping[str, Endpoint]:
    """The mirrors by registry host, with the CA and the credentials that they need, if any."""
    return {host: Endpoint(url, ca, **(reader or {})) for host, url in urls.items()}


def through_cache(image: str, endpoints: Urls) -> str:
    """The name of an image at the cache of its registry; its own name if there is no cache.

    An image with a digest keeps its name, because the engine cannot tag it.
    """
    host, _, rest = image.partition("/")
    endpoint = None if _has_digest(image) else endpoints.get(host)
    return f"{urlsplit(endpoint).netloc}/{rest}" if endpoint else image


def registry_auths(endpoints: Urls, reader: Reader | None) -> list[Mapping[str, str]]:
    """Credentials of the Docker provider for the caches; none if these are open to everyone."""
    addresses = {urlsplit(url).netloc for url in endpoints.values()} if reader else ()
    return [{"address": address, **(reader or {})} for address in sorted(addresses)]


def _plan_or_run_error(
    name: str, settings: Cluster, folder: Path, mirrors: Mapping[str, Endpoint]
) -> Invocation | None:
    try:
        return plan(name, settings, folder, mirrors)
    except TalosError as error:
        raise pulumi.RunError(f"clusters.{name}: {error}") from None


def _puller(name: str, args: TalosClusterArgs, child: pulumi.ResourceOptions) -> docker.Provider:
    """A Docker provider with the password for the caches. On loopback, it does not check TLS."""
    reader = args.mirrors.trust.inputs()["reader"]
    auths: pulumi.Output[Any] = pulumi.Output.all(args.mirrors.endpoints, reader).apply(
        lambda known: registry_auths(*known)
    )
    return docker.Provider(
        f"{name}-node-image-puller",
        host=pulumi.Config("docker").get("host"),
        registry_auth=auths,
        opts=child,
    )


def _network_mistakes(
    name: str, settings: Cluster, facts: EngineFacts, folder: Path
) -> Iterator[Mistake]:
    wanted = IPv4Network(settings.cidr)
    for network, found in facts.networks.items():
        # A network with the cluster's name is its own, or reported below.
        if network != name and any(wanted.overlaps(IPv4Network(one)) for one in found.subnets):
            text = (
                f"found {settings.cidr}, which overlaps {', '.join(found.subnets)} of the engine's "
                f"network {network}; allowed: a free network, such as 10.6.0.0/24"
            )
            yield Mistake(("clusters", name, "cidr"), text)
    if name in facts.networks and not ClusterFiles(folder, name).folder.exists():
        text = "found a network of this name that was not created here; allowed: another name"
        yield Mistake(("clusters", name), text)


def _has_node_image(settings: Cluster) -> bool:
    return settings.provisioner == "docker" and not dynamic_provider.is_simulated()


def _has_digest(image: str) -> bool:
    return "@" in image
