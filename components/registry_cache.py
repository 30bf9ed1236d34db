"""RegistryCache: the caches of a stack."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Any

import pulumi
import pulumi_docker as docker
from pydantic import SecretStr

from talos_registry_cache.engine import labels as label

from . import access, credential_helper, names, state_owner
from .belongings import Belongings
from .caching_proxy import CachingProxy, CachingProxyArgs
from .engine import EngineFacts, NetworkHooks
from .names import in_names
from .placement import MountedFiles, OnEngine, OnSwarm, Placement
from .private_files import PrivateFile
from .settings import Caches, Secrets
from .settings.caches import Upstream, asking_themselves
from .settings.mistakes import Mistake
from .settings.placement import SwarmPlacement
from .settings.secrets import VIA
from .settings.storage import S3Storage, VolumeStorage
from .settings.values import ANY_ADDRESS, is_ipv4
from .storage import ObjectStore, Storage, VolumeOfEngine, VolumeOfNode, s3_location
from .trust import Trust

LOOPBACK = "127.0.0.1"
ANONYMOUS = "anonymous"


@dataclass(frozen=True, slots=True)
class RegistryCacheArgs:
    """What the caches of a stack are made from.

    Attributes:
        stack: the stack's name.
        caches: their settings.
        secrets: the stack's secrets.
        facts: what the program has learnt of the engine.
        owner: the state of the stack.
    """

    stack: str
    caches: Caches
    secrets: Secrets
    facts: EngineFacts
    owner: str = field(default_factory=state_owner.of_this_program)


class RegistryCache(pulumi.ComponentResource):
    """One caching proxy for each upstream of a stack, on a network of their own."""

    proxies: Mapping[str, CachingProxy]
    """The caching proxies, by registry host."""

    mirrors: Mapping[str, str]
    """The URL of each as nodes reach it, by registry host."""

    caches: Mapping[str, Mapping[str, pulumi.Input[str]]]
    """Endpoint, name, storage and image of each, by registry host."""

    trust: Trust
    """What lets clients in."""

    talosctl_flags: str
    """The same as flags of `talosctl cluster create`."""

    def __init__(
        self, name: str, args: RegistryCacheArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        caches = args.caches
        self._prefix = names.of_caches(caches.name_prefix, args.stack)
        self._belongings = Belongings(args.facts, args.owner, self._prefix)
        self._belongings.refuse_others(names_on_engine(args.stack, caches), caches.take_over_from)
        super().__init__("talos-registry-cache:caches:RegistryCache", name, {}, opts)
        self._args = args
        self._mirror_host = _mirror_host(caches, args.facts)
        self._publish_on = _publish_on(caches, self._mirror_host)
        self._images: dict[str, docker.RemoteImage] = {}
        hooks = NetworkHooks(self._prefix)
        network = self._network(hooks)
        hooks.watch(network)
        self._placement = self._place(network, hooks)
        self._to_caches = access.to_caches(
            args.stack, caches, args.secrets, self._addresses(), self
        )
        self._of_caches = access.of_caches(caches, args.secrets)
        self._shared_files: MountedFiles | None = None
        self.proxies = {
            host: CachingProxy(
                host, self._proxy_args(host, upstream), pulumi.ResourceOptions(parent=self)
            )
            for host, upstream in caches.upstreams.items()
        }
        self.trust = self._to_caches.trust
        self.caches = {host: proxy.described() for host, proxy in self.proxies.items()}
        self.mirrors = {host: proxy.mirror for host, proxy in self.proxies.items()}
        self.talosctl_flags = " ".join(
            f"--registry-mirror {host}={url}" for host, url in self.mirrors.items()
        )
        self.register_outputs(
            {
                "mirrors": self.mirrors,
                "caches": self.caches,
                "talosctlFlags": self.talosctl_flags,
            }
        )

    def _network(self, hooks: NetworkHooks) -> docker.Network:
        labels = {**label.of_stack(self._args.stack), **self._belongings.marks_of_network()}
        return docker.Network(
            "network",
            name=self._prefix,
            driver="overlay" if self._is_on_swarm else "bridge",
            # For what collects metrics, which are open to this network only.
            attachable=True if self._is_on_swarm else None,
            labels=label.inputs(labels),
            opts=pulumi.ResourceOptions(
                parent=self,
                delete_before_replace=True,
                hooks=pulumi.ResourceHookBinding(
                    before_create=[hooks.before_network], after_create=[hooks.after_network]
                ),
            ),
        )

    def _place(self, network: docker.Network, hooks: NetworkHooks) -> Placement:
        caches = self._args.caches
        if isinstance(caches.placement, SwarmPlacement):
            return OnSwarm(self._prefix, caches.placement, network.id)
        return OnEngine(
            prefix=self._prefix,
            network=self._prefix,
            publish_on=self._publish_on,
            writer_image=self._image(self._to_run(caches.image)),
            belongings=self._belongings,
            network_hooks=hooks,
        )

    def _addresses(self) -> Sequence[str]:
        """The names and addresses at which clients reach the caches."""
        addresses = {self._mirror_host, *self._publish_on} - {ANY_ADDRESS}
        return sorted(addresses)

    def _proxy_args(self, host: str, upstream: Upstream) -> CachingProxyArgs:
        caches = self._args.caches
        image = self._to_run(upstream.image or caches.image)
        return CachingProxyArgs(
            name=self._named(host),
            storage=self._storage(host),
            placement=self._placement,
            image=self._image(image),
            image_reference=image,
            remote_url=None if caches.offline else self._remote_url(host, upstream),
            mirror=self._url(self._mirror_host, upstream.port),
            endpoint=self._url(self._endpoint_host(), upstream.port),
            port=upstream.port,
            files=self._files(host, upstream),
            access=self._to_caches.environment,
            trust=self._of_caches.environment,
            ttl=None if caches.ttl == "never" else caches.ttl,
            logs=caches.logs,
            memory_limit=caches.memory_limit,
            labels=label.of_upstream(self._args.stack, host),
            marks=self._marks(upstream.port),
        )

    def _url(self, host: str, port: int) -> str:
        return f"{'https' if self._args.caches.tls else 'http'}://{host}:{port}"

    def _marks(self, port: int) -> Mapping[str, Any]:
        """What a cache's labels tell beside whose it is."""
        ca = self._to_caches.trust.ca
        marks = {} if ca is None else {label.CA: ca}
        # A container is asked for its ports; those of a service say nothing of their host.
        mirror = self._url(self._mirror_host, port)
        return marks | ({label.MIRROR: mirror} if self._is_on_swarm else {})

    @property
    def _is_on_swarm(self) -> bool:
        return isinstance(self._args.caches.placement, SwarmPlacement)

    def _storage(self, host: str) -> Storage:
        caches = self._args.caches
        match caches.storage:
            case S3Storage() as settings:
                return ObjectStore(s3_location(settings, host))
            case VolumeStorage(volume_prefix=prefix, on_destroy=on_destroy):
                volume = f"{prefix or self._prefix}-{in_names(host)}"
                if self._is_on_swarm:
                    return VolumeOfNode(volume)
                return VolumeOfEngine(volume, on_destroy, self._belongings)

    def _endpoint_host(self) -> str:
        """The host by which this machine reaches the caches: where they are not its own, as all."""
        if self._is_on_swarm:
            return self._mirror_host
        return min(self._publish_on, key=_nearness)

    def _remote_url(self, host: str, upstream: Upstream) -> str:
        via = self._args.caches.via
        return via.mirrors.get(host, upstream.remote_url) if via else upstream.remote_url

    def _files(self, host: str, upstream: Upstream) -> MountedFiles:
        """A cache's own private files, or those that all share who are nobody at their upstream."""
        via, passwords = self._args.caches.via, self._args.secrets.passwords
        if via and via.username and host in via.mirrors:
            return self._own_files(host, via.username, passwords[VIA])
        if upstream.username is not None:
            return self._own_files(host, upstream.username, passwords[host])
        if self._shared_files is None:
            self._shared_files = self._placement.files(
                ANONYMOUS,
                label.of_stack(self._args.stack),
                self._all_files(credential_helper.file()),
                self,
            )
        return self._shared_files

    def _own_files(self, host: str, username: str, password: SecretStr) -> MountedFiles:
        return self._placement.files(
            _with_credentials(host),
            label.of_upstream(self._args.stack, host),
            self._all_files(credential_helper.file(username, password)),
            self,
        )

    def _all_files(self, helper: PrivateFile) -> Mapping[str, PrivateFile]:
        return {
            credential_helper.FILE: helper,
            **self._to_caches.files,
            **self._of_caches.files,
        }

    def _to_run(self, reference: str) -> str:
        """The name of the image that is run for one that the settings name."""
        return self._args.facts.images.get(reference, reference)

    def _image(self, reference: str) -> pulumi.Output[str]:
        """The ID of an image, pulled once however many caches run it, and kept on destroy."""
        if reference not in self._images:
            self._images[reference] = docker.RemoteImage(
                reference,
                name=reference,
                keep_locally=True,
                opts=pulumi.ResourceOptions(parent=self),
            )
        return self._images[reference].image_id

    def _named(self, host: str) -> str:
        return f"{self._prefix}-{in_names(host)}"


def mistakes(caches: Caches | None, facts: EngineFacts) -> Iterator[Mistake]:
    """What is wrong with settings of caches on this machine, before anything is touched.

    Args:
        caches: the settings, or None where the stack has no caches.
        facts: what the program has learnt of the engine.
    """
    if caches is None:
        return
    mirror_host = _mirror_host(caches, facts)
    hosts = {mirror_host, *_publish_on(caches, mirror_host)}
    if ANY_ADDRESS in hosts:
        hosts.add(facts.mirror_host)
    for mistake in asking_themselves(caches, hosts):
        yield Mistake(("caches", *mistake.path), mistake.text)


def names_on_engine(stack: str, caches: Caches) -> Collection[str]:
    """The names that the network, containers and volumes of a stack's caches may have."""
    prefix = names.of_caches(caches.name_prefix, stack)
    hosts = [in_names(host) for host in caches.upstreams]
    ends = [ANONYMOUS, *hosts, *map(_with_credentials, hosts)]
    found = {prefix, *(f"{prefix}-{end}" for end in ends)}
    if isinstance(caches.storage, VolumeStorage):
        found |= {f"{caches.storage.volume_prefix or prefix}-{host}" for host in hosts}
    return found


def _with_credentials(host: str) -> str:
    return f"{host}-credentials"


def _mirror_host(caches: Caches, facts: EngineFacts) -> str:
    return facts.mirror_host if caches.mirror_host == "auto" else caches.mirror_host


def _publish_on(caches: Caches, mirror_host: str) -> Sequence[str]:
    if caches.publish_on is not None:
        addresses = caches.publish_on
    else:
        addresses = [LOOPBACK, mirror_host] if is_ipv4(mirror_host) else [LOOPBACK]
    return list(dict.fromkeys(addresses))


def _nearness(address: str) -> tuple[bool, str]:
    """Orders addresses by how directly this machine reaches them: loopback first."""
    return not IPv4Address(address).is_loopback, address
