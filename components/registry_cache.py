"""RegistryCache: the caches of a stack."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi
import pulumi_docker as docker
from pydantic import SecretStr

from components import engine
from components import labels as label
from components.caching_proxy import CachingProxy, CachingProxyArgs
from components.credential_helper import CredentialHelper, CredentialHelperArgs
from components.engine import EngineFacts
from components.settings import Caches
from components.settings.caches import Upstream
from components.settings.values import is_ipv4, mebibytes

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class RegistryCacheArgs:
    """What the caches of a stack are made from.

    Attributes:
        stack: the stack's name.
        caches: their settings.
        passwords: the password of each upstream that has a user name, by registry host.
        facts: what the program has learnt of the engine.
    """

    stack: str
    caches: Caches
    passwords: Mapping[str, SecretStr]
    facts: EngineFacts


class RegistryCache(pulumi.ComponentResource):
    """One caching proxy for each upstream of a stack, on a network of their own."""

    proxies: Mapping[str, CachingProxy]
    """The caching proxies, by registry host."""

    mirrors: Mapping[str, str]
    """The URL of each as nodes reach it, by registry host."""

    caches: Mapping[str, Mapping[str, pulumi.Input[str]]]
    """Endpoint, container, volume and image of each, by registry host."""

    talosctl_flags: str
    """The same as flags of `talosctl cluster create`."""

    def __init__(
        self, name: str, args: RegistryCacheArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("talos-registry-cache:caches:RegistryCache", name, {}, opts)
        self._args = args
        self._prefix = args.caches.name_prefix or f"registry-{args.stack}"
        self._mirror_host = _mirror_host(args.caches, args.facts)
        self._images: dict[str, docker.RemoteImage] = {}
        left_behind = args.facts.networks.get(self._prefix)
        is_ours = left_behind is not None and left_behind.stack == args.stack
        docker.Network(
            "network",
            name=self._prefix,
            driver="bridge",
            labels=label.inputs(label.of_stack(args.stack)),
            opts=pulumi.ResourceOptions(
                parent=self,
                hooks=pulumi.ResourceHookBinding(before_create=[engine.before_network]),
                # One that a killed run has left, which caches may be on, is taken over.
                import_=left_behind.id if left_behind and is_ours else None,
            ),
        )
        self._anonymous: CredentialHelper | None = None
        self.proxies = {
            host: CachingProxy(
                host, self._proxy_args(host, upstream), pulumi.ResourceOptions(parent=self)
            )
            for host, upstream in args.caches.upstreams.items()
        }
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

    def _proxy_args(self, host: str, upstream: Upstream) -> CachingProxyArgs:
        caches = self._args.caches
        container = self._named(host)
        image = upstream.image or caches.image
        return CachingProxyArgs(
            container=container,
            volume=f"{caches.storage.volume_prefix or self._prefix}-{_in_names(host)}",
            on_destroy=caches.storage.on_destroy,
            image=self._image(image),
            image_reference=image,
            remote_url=None if caches.offline else upstream.remote_url,
            port=upstream.port,
            publish_on=_in_engine_order(
                _publish_on(caches, self._mirror_host),
                self._args.facts.published.get(container, []),
            ),
            mirror_host=self._mirror_host,
            network=self._prefix,
            credentials=self._credentials(host, upstream).volume,
            ttl=None if caches.ttl == "never" else caches.ttl,
            log_level=caches.logs.level,
            log_max_size=caches.logs.max_size,
            log_max_files=caches.logs.max_files,
            memory_limit_mib=mebibytes(caches.memory_limit),
            labels=label.of_upstream(self._args.stack, host),
        )

    def _credentials(self, host: str, upstream: Upstream) -> CredentialHelper:
        """The upstream's own credential helper, or the one that all anonymous ones share."""
        if upstream.username is None:
            if self._anonymous is None:
                self._anonymous = self._helper("anonymous", label.of_stack(self._args.stack))
            return self._anonymous
        return self._helper(
            f"{host}-credentials",
            label.of_upstream(self._args.stack, host),
            username=upstream.username,
            password=self._args.passwords[host],
        )

    def _helper(
        self,
        name: str,
        labels: Mapping[str, str],
        username: str | None = None,
        password: SecretStr | None = None,
    ) -> CredentialHelper:
        args = CredentialHelperArgs(
            volume=self._named(name),
            image=self._image(self._args.caches.image),
            labels=labels,
            username=username,
            password=password,
        )
        return CredentialHelper(name, args, pulumi.ResourceOptions(parent=self))

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
        return f"{self._prefix}-{_in_names(host)}"


def _in_names(host: str) -> str:
    """A registry host in a container's or volume's name, where a colon is not allowed."""
    return host.replace(":", "_")


def _mirror_host(caches: Caches, facts: EngineFacts) -> str:
    return facts.mirror_host if caches.mirror_host == "auto" else caches.mirror_host


def _publish_on(caches: Caches, mirror_host: str) -> Sequence[str]:
    if caches.publish_on is not None:
        addresses = caches.publish_on
    else:
        addresses = [LOOPBACK, mirror_host] if is_ipv4(mirror_host) else [LOOPBACK]
    return list(dict.fromkeys(addresses))


def _in_engine_order(wanted: Sequence[str], published: Sequence[str]) -> Sequence[str]:
    """The wanted addresses, in the engine's order if it has just these.

    The provider compares them one by one with what the engine said, and engines differ: 20.10
    turns the order in which it was asked around, later ones sort. Any other order than the
    engine's would replace the container at every `up`.
    """
    return published if sorted(published) == sorted(wanted) else sorted(wanted)
