"""RegistryCache: the caches of a stack."""

import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from ipaddress import IPv4Address
from typing import Any
from urllib.request import getproxies_environment

import pulumi
import pulumi_docker as docker

from talos_registry_cache.endpoint import ALL_REGISTRIES
from talos_registry_cache.engine import labels as label
from talos_registry_cache.engine import ports, reachability
from talos_registry_cache.registry.reference import Reference
from talos_registry_cache.registry.s3_location import S3Credentials, S3Location

from . import (
    access,
    credential_helper,
    dynamic_provider,
    engine,
    front,
    local,
    logins,
    names,
    reachable,
    state_owner,
    wildcard,
)
from .belongings import Belongings
from .caching_proxy import CachingProxy, CachingProxyArgs
from .engine import ENGINE_IN_VM, EngineFacts
from .hooks import NetworkHooks
from .logins import Login
from .names import in_names, registry_name, shared_volume_name
from .on_engine import OnEngine
from .on_swarm import OnSwarm
from .placement import Bounds, FrontProcess, MountedFiles, Placement, volume_name
from .private_files import PrivateFile
from .registry_cache_args import ArgumentsError, RegistryCacheArgs, output
from .retention import ImageRetention
from .settings import Caches
from .settings.access import OwnTls
from .settings.caches import asking_themselves
from .settings.local import Local
from .settings.mistakes import Mistake
from .settings.placement import EnginePlacement, SwarmPlacement
from .settings.secrets import VIA
from .settings.storage import S3Storage, VolumeStorage
from .settings.upstream import Upstream
from .settings.values import ANY_ADDRESS, is_ipv4
from .settings.wildcard import Wildcard
from .storage import s3_credentials, s3_location
from .trust import Trust

LOOPBACK = "127.0.0.1"
ANONYMOUS = "anonymous"
FRONTS = "fronts"


class RegistryCache(pulumi.ComponentResource):
    """One caching proxy for each upstream, on a network of their own.

    A stack can have one of them. Labels with the stack's name are on its containers, volumes and
    network; `cachectl` finds them by these.
    """

    proxies: dict[str, CachingProxy]
    """The caching proxies, and the local registry, by registry host."""

    mirrors: dict[str, str]
    """URL at which nodes reach the cache, by registry host; `*` is the wildcard mirror."""

    caches: Mapping[str, Mapping[str, pulumi.Input[str]]]
    """Endpoint, name, storage and image of each cache, by registry host."""

    trust: Trust
    """CA and user that clients need."""

    s3_locations: Mapping[str, S3Location]
    """The bucket and folder of each cache, by registry host; empty for caches in volumes."""

    s3_credentials: pulumi.Output[S3Credentials] | None
    """Credentials for the object store, which Pulumi encrypts; None for caches in volumes."""

    talosctl_flags: str
    """The mirrors as flags of `talosctl cluster create`."""

    def __init__(
        self, name: str, args: RegistryCacheArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        """Declare the caches.

        Raises:
            ArgumentsError: the arguments do not fit this machine.
            EngineError: the container engine does not answer.
            OwnedByAnotherError: another stack has resources of the same names.
        """
        self._stack = pulumi.get_stack()
        facts = engine.discover(self._stack)
        if wrong := [*mistakes(args, facts), *_mistakes_of_pins(args)]:
            raise ArgumentsError(wrong)
        self._args = args
        self._prefix = names.of_caches(args.name_prefix, self._stack)
        self._belongings = Belongings(facts, state_owner.of_this_program(), self._prefix)
        self._belongings.refuse_others(names_on_engine(self._stack, args), args.take_over_from)
        self._logins = {} if args.offline else logins.of_upstreams(args.upstreams)
        super().__init__("talos-registry-cache:caches:RegistryCache", name, {}, opts)
        self._warn_of_unused_proxy()
        self._mirror_host = _mirror_host(args, facts)
        self._publish_on = _publish_on(args, self._mirror_host)
        self._images: dict[str, docker.RemoteImage] = {}
        hooks = NetworkHooks(self._prefix)
        network = self._network(hooks)
        hooks.watch(network)
        self._placement = self._place(network, hooks)
        self._access = access.declare(args, self._addresses(), self)
        self._anonymous_files: MountedFiles | None = None
        self._common_front: FrontProcess | None = None
        self.proxies = {
            host: CachingProxy(
                host,
                self._proxy_args(
                    upstream,
                    files=self._files(host, upstream),
                    authorities=access.authorities(self._args, host),
                    front=self._front(host),
                ),
                pulumi.ResourceOptions(parent=self),
            )
            for host, upstream in args.upstreams.items()
        }
        if args.local:
            self.proxies |= {args.local.host: self._declare_local(args.local)}
        self.trust = self._access.trust
        self.s3_locations = (
            {host: s3_location(args.storage, host) for host in args.upstreams}
            if isinstance(args.storage, S3Storage)
            else {}
        )
        self.s3_credentials = s3_credentials(output(args.s3_keys)) if args.s3_keys else None
        self.caches = {host: proxy.described() for host, proxy in self.proxies.items()}
        self.mirrors = {host: proxy.mirror for host, proxy in self.proxies.items()}
        if args.wildcard:
            self.mirrors[ALL_REGISTRIES] = self._declare_wildcard(args.wildcard)
        self._declare_reachable(facts)
        self.talosctl_flags = " ".join(
            f"--registry-mirror {shlex.quote(f'{host}={mirror}')}"
            for host, mirror in self.mirrors.items()
        )
        if args.retention is not None:
            ImageRetention(
                "retention",
                settings=args.retention,
                # Pushed images cannot be fetched again.
                caches={host: self.caches[host] for host in args.upstreams},
                kept=[str(image) for image in args.kept_images],
                opts=pulumi.ResourceOptions(parent=self),
            )
        self.register_outputs(
            {"mirrors": self.mirrors, "caches": self.caches, "talosctlFlags": self.talosctl_flags}
        )

    def outputs(self) -> dict[str, Any]:
        """Its outputs under the names that stacks export: `ca` and `reader` only where set."""
        trust = {key: value for key, value in self.trust.inputs().items() if value is not None}
        return {
            "mirrors": self.mirrors,
            "caches": self.caches,
            "talosctlFlags": self.talosctl_flags,
            **trust,
        }

    def _warn_of_unused_proxy(self) -> None:
        proxies = getproxies_environment()
        found = [f"{scheme.upper()}_PROXY" for scheme in ("http", "https") if scheme in proxies]
        if found and self._args.proxy is None and not self._args.offline:
            pulumi.log.warn(
                f"The caches do not use the proxy in {' and '.join(found)}. To use it, set "
                "caches.proxy to {kind: environment}; to connect directly, set it to {}.",
                self,
            )

    def _network(self, hooks: NetworkHooks) -> docker.Network:
        labels = {**label.of_stack(self._stack), **self._belongings.marks_of_network()}
        return docker.Network(
            "network",
            name=self._prefix,
            driver="overlay" if self._is_on_swarm else "bridge",
            # For Prometheus: metrics are reachable on this network only.
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
        if isinstance(self._args.placement, SwarmPlacement):
            return OnSwarm(self._prefix, self._args.placement, network.id)
        return OnEngine(
            prefix=self._prefix,
            publish_on=self._publish_on,
            writer_image=self._image(engine.image_to_run(self._args.image)),
            belongings=self._belongings,
            network_hooks=hooks,
        )

    def _addresses(self) -> Sequence[str]:
        """The names and addresses at which clients, and the wildcard mirror, reach the caches."""
        internal = {wildcard.SERVER_NAME} if self._args.wildcard else set()
        return sorted({self._mirror_host, *self._publish_on, *internal} - {ANY_ADDRESS})

    def _proxy_args(
        self,
        upstream: Upstream | Local,
        *,
        files: MountedFiles,
        authorities: str,
        front: FrontProcess | None,
    ) -> CachingProxyArgs:
        image = engine.image_to_run(upstream.image or self._args.image)
        return CachingProxyArgs(
            upstream=upstream,
            caches=self._args,
            image=self._image(image),
            image_reference=image,
            placement=self._placement,
            mirror_host=self._mirror_host,
            endpoint_host=self._endpoint_host,
            files=files,
            access=self._access,
            authorities=authorities,
            front=front,
        )

    def _front(self, host: str) -> FrontProcess | None:
        """The front of a cache; those without pinned tags have their files in common."""
        if self._args.fronts is None:
            return None
        if pins := _pins(self._args.pinned_images, host):
            labels = label.of_upstream(self._stack, host)
            return self._declare_front(_of_front(host), labels, pins)
        if self._common_front is None:
            labels = label.of_stack(self._stack)
            self._common_front = self._declare_front(FRONTS, labels, {})
        return self._common_front

    def _declare_front(
        self, name: str, labels: Mapping[str, str], pins: front.Pins
    ) -> FrontProcess:
        files = front.files(
            self._args.front,
            self._access.server_files,
            readers=self._args.readers != {},
            pins=pins,
        )
        return self._nginx(self._placement.files(name, labels, files, self))

    def _nginx(self, files: MountedFiles) -> FrontProcess:
        image = engine.image_to_run(self._args.front.image)
        return FrontProcess(image=self._image(image), image_reference=image, files=files)

    def _declare_local(self, settings: Local) -> CachingProxy:
        """Declare the local registry, with a front that accepts pushes."""
        files = local.files(settings, self._access.server_files, readers=self._args.readers != {})
        mounted = self._placement.files(
            _with_credentials(local.NAME), label.of_stack(self._stack), files, self
        )
        args = self._proxy_args(
            settings,
            files=self._anonymous(),
            authorities=access.authorities(self._args),
            front=self._nginx(mounted),
        )
        return CachingProxy(local.NAME, args, pulumi.ResourceOptions(parent=self))

    def _declare_wildcard(self, settings: Wildcard) -> str:
        """Declare the wildcard mirror; returns its URL for nodes."""
        # The settings of a Swarm have none.
        assert isinstance(self._placement, OnEngine)  # noqa: S101
        url = f"{'https' if self._args.tls else 'http'}://{self._mirror_host}:{settings.port}"
        labels: dict[str, Any] = {**label.of_stack(self._stack), label.WILDCARD: url}
        ca = self._access.trust.ca
        if ca is not None:
            labels[label.CA] = ca
        files = wildcard.files(
            {host: f"{self._prefix}-{in_names(name)}" for host, name in self._names().items()},
            self._access.server_files,
            # A given certificate need not have a name that nginx can check.
            authority=ca if isinstance(self._args.tls, OwnTls) else None,
            readers=self._args.readers != {},
        )
        mounted = self._placement.files(
            _with_credentials(wildcard.NAME), label.of_stack(self._stack), files, self
        )
        process = self._nginx(mounted)
        self._placement.run_wildcard(process, settings.port, labels, Bounds(self._args), self)
        return url

    def _declare_reachable(self, facts: EngineFacts) -> None:
        """Try from another network whether nodes reach the mirrors, where there is one."""
        mirrors = {
            host: url
            for host, url in self.mirrors.items()
            if reachability.is_for_nodes(url, self._publish_on)
        }
        # A pull request's preview would show it as one more change.
        is_possible = reachability.NETWORK in facts.networks and not dynamic_provider.is_simulated()
        if mirrors and is_possible and isinstance(self._placement, OnEngine):
            image = self._placement.writer_image
            reachable.declare(mirrors, image, self._placement.published, self)

    def _names(self) -> Mapping[str, str]:
        """What each cache is called in names on the engine, by registry host."""
        own = {self._args.local.host: local.NAME} if self._args.local else {}
        return {**{host: host for host in self._args.upstreams}, **own}

    @property
    def _is_on_swarm(self) -> bool:
        return isinstance(self._args.placement, SwarmPlacement)

    @property
    def _endpoint_host(self) -> str:
        """The host at which this machine reaches the caches."""
        if self._is_on_swarm:
            return self._mirror_host
        return min(self._publish_on, key=_nearness)

    def _files(self, host: str, upstream: Upstream) -> MountedFiles:
        """The private files of a cache, which anonymous caches share if they trust the same CAs."""
        if login := self._login(host, upstream):
            return self._own_files(host, credential_helper.file(login))
        if access.authorities(self._args, host) != access.authorities(self._args):
            return self._own_files(host, credential_helper.anonymous())
        return self._anonymous()

    def _anonymous(self) -> MountedFiles:
        """The private files of caches without a login."""
        if self._anonymous_files is None:
            labels = label.of_stack(self._stack)
            common = access.authorities(self._args)
            files = self._with_shared(credential_helper.anonymous(), common)
            self._anonymous_files = self._placement.files(ANONYMOUS, labels, files, self)
        return self._anonymous_files

    def _login(self, host: str, upstream: Upstream) -> pulumi.Output[Login] | None:
        """The login of a cache at its parent cache or upstream; None for an anonymous one."""
        if self._args.offline:
            return None
        via = self._args.via
        if via and host in via.mirrors:
            key, username = VIA, via.username
        elif host in self._logins:
            return self._logins[host]
        else:
            key, username = host, upstream.username
        if username is None:
            return None
        return self._args.password(key).apply(lambda password: Login(username, password))

    def _own_files(self, host: str, helper: PrivateFile) -> MountedFiles:
        labels = label.of_upstream(self._stack, host)
        files = self._with_shared(helper, access.authorities(self._args, host))
        return self._placement.files(_with_credentials(host), labels, files, self)

    def _with_shared(self, helper: PrivateFile, authorities: str) -> Mapping[str, PrivateFile]:
        files = {credential_helper.FILE: helper, **self._access.files}
        if authorities:
            files[access.AUTHORITIES_FILE] = PrivateFile(authorities, is_read_once=True)
        return files

    def _image(self, reference: str) -> pulumi.Output[str]:
        """The ID of an image, declared once however many caches run it."""
        if reference not in self._images:
            self._images[reference] = docker.RemoteImage(
                reference,
                name=reference,
                keep_locally=True,
                opts=pulumi.ResourceOptions(parent=self),
            )
        return self._images[reference].image_id


def mistakes(caches: Caches, facts: EngineFacts) -> Iterator[Mistake]:
    """Mistakes in settings that only this machine shows.

    Args:
        caches: the settings.
        facts: the engine's state.

    Yields:
        Mistakes, with their paths below `caches`.
    """
    mirror_host = _mirror_host(caches, facts)
    hosts = {mirror_host, *_publish_on(caches, mirror_host)}
    if ANY_ADDRESS in hosts:
        hosts.add(facts.mirror_host)
    yield from asking_themselves(caches, hosts)
    if not isinstance(caches.placement, EnginePlacement):
        return
    yield from _mistakes_of_local(caches, facts)
    if facts.is_rootless:
        yield from _mistakes_without_root(caches)
    else:
        yield from _missing_addresses(caches, facts)


def _missing_addresses(caches: Caches, facts: EngineFacts) -> Iterator[Mistake]:
    """Addresses to publish on that do not exist, which the engine would report half-way.

    Nothing is known about the addresses of an engine in a virtual machine.
    """
    if not facts.is_on_this_machine:
        return
    allowed = "an address of this machine (ip -4 address)"
    if caches.mirror_host == "auto" and facts.mirror_host == ENGINE_IN_VM:
        found = (
            f"whose bridge should have {facts.bridge_gateway}, which this machine does not have now"
            if facts.bridge_gateway
            else "which has no default bridge"
        )
        yield Mistake(("mirrorHost",), f"found auto with an engine {found}; allowed: {allowed}")
    path = "mirrorHost" if caches.publish_on is None else "publishOn"
    for address in _publish_on(caches, _mirror_host(caches, facts)):
        if address != ANY_ADDRESS and not ports.is_own_address(address):
            text = f"found {address}, which this machine does not have now"
            yield Mistake((path,), f"{text}; allowed: {allowed}")


def _mistakes_without_root(caches: Caches) -> Iterator[Mistake]:
    """Mistakes in the addresses of caches on a rootless engine.

    Its bridge is in a network namespace of its own, and it publishes a port on one address only.
    """
    allowed = "an address of this machine's own network, the same one for mirrorHost and publishOn"
    if caches.mirror_host == "auto":
        yield Mistake(("mirrorHost",), f"found auto with a rootless engine; allowed: {allowed}")
    elif len(addresses := _publish_on(caches, caches.mirror_host)) > 1:
        text = f"found {', '.join(addresses)} with a rootless engine"
        yield Mistake(("publishOn",), f"{text}; allowed: {allowed}")


def _mistakes_of_local(caches: Caches, facts: EngineFacts) -> Iterator[Mistake]:
    """Reasons why pushes on loopback and pulls by nodes cannot have the same port."""
    if caches.local is None:
        return
    if facts.is_rootless:
        text = "found local with a rootless engine, which publishes a port on one address only"
        yield Mistake(("local",), f"{text}; allowed: none")
    elif caches.tls and not local.for_nodes(_publish_on(caches, _mirror_host(caches, facts))):
        text = "found local with tls, but nodes use the port for pushes here, which has no TLS"
        yield Mistake(("local",), f"{text}; allowed: one of both")


def names_on_engine(stack: str, caches: Caches) -> Collection[str]:
    """The names that the network, containers and volumes of a stack's caches may have."""
    prefix = names.of_caches(caches.name_prefix, stack)
    hosts = [*map(in_names, caches.upstreams), local.NAME]
    own = [*hosts, wildcard.NAME]
    ends = [ANONYMOUS, FRONTS, *own, *map(_with_credentials, own), *map(_of_front, hosts)]
    found = {prefix, *(f"{prefix}-{end}" for end in ends)}
    for host in hosts:
        found |= {registry_name(f"{prefix}-{host}"), shared_volume_name(f"{prefix}-{host}")}
    if isinstance(caches.storage, VolumeStorage):
        found |= {volume_name(caches.storage, prefix, host) for host in hosts}
    return found


def _mistakes_of_pins(args: RegistryCacheArgs) -> Iterator[Mistake]:
    """Pinned images that no front of these caches can answer for."""
    for number, image in enumerate(args.pinned_images):
        if image.registry not in args.upstreams:
            allowed = ", ".join(args.upstreams)
            text = f"found {image}, but there is no cache for {image.registry}; allowed: {allowed}"
            yield Mistake(("pinnedImages", number), text)
    if args.pinned_images and args.fronts is None:
        text = "found with replicas, which have no front to keep tags; allowed: only without"
        yield Mistake(("pinnedImages",), text)


def _pins(images: Sequence[Reference], host: str) -> front.Pins:
    """The digests of pinned tags of a registry."""
    return {
        (image.repository, image.tag): image.digest
        for image in images
        if image.registry == host and image.tag and image.digest
    }


def _with_credentials(host: str) -> str:
    return f"{host}-credentials"


def _of_front(host: str) -> str:
    return f"{host}-front-files"


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
