"""CachingProxy: the pull-through cache of one upstream registry, or a registry to push to."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pulumi

from talos_registry_cache.engine import labels as label

from . import credential_helper, front, local
from .access import Access
from .placement import (
    METRICS_PORT,
    PROBE,
    FrontProcess,
    MountedFiles,
    Placement,
    Process,
)
from .private_files import FOLDER
from .settings import Caches
from .settings.local import Local
from .settings.storage import S3Storage, VolumeStorage
from .settings.upstream import Upstream
from .storage import Stored, in_object_store, s3_location

# Behind a front, a registry has no other port; with TLS, it has no certificate for this address.
PROBE_URL = f"http://127.0.0.1:{METRICS_PORT}/debug/health"


@dataclass(frozen=True, slots=True)
class CachingProxyArgs:
    """Arguments of CachingProxy.

    Attributes:
        upstream: settings of the upstream, or of the local registry.
        caches: settings that all caches of the stack share.
        image: ID of the image.
        image_reference: reference of the image.
        placement: where the cache runs.
        mirror_host: host at which nodes reach it.
        endpoint_host: host at which this machine reaches it.
        files: its private files.
        access: who may use it, and its credentials for the storage.
        authorities: CAs in PEM that it trusts in addition to those in its image; may be empty.
        front: the front before it, if there is one.
    """

    upstream: Upstream | Local
    caches: Caches
    image: pulumi.Input[str]
    image_reference: str
    placement: Placement
    mirror_host: str
    endpoint_host: str
    files: MountedFiles
    access: Access
    authorities: str
    front: FrontProcess | None = None


class CachingProxy(pulumi.ComponentResource):
    """A registry that fetches images from its upstream once, and keeps them.

    It starts and serves cached images while its upstream is unreachable. It runs without root,
    without capabilities and on a read-only root file system. Cached images outlive it.
    """

    mirror: str
    """URL at which nodes reach it."""

    endpoint: str
    """URL at which this machine reaches it."""

    name: pulumi.Output[str]
    """Name of its container or service, once it answers."""

    storage: pulumi.Output[str]
    """Where cached images are kept: the name of a volume, or a location in an object store."""

    image: str
    """Reference of its image."""

    def __init__(
        self, name: str, args: CachingProxyArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("talos-registry-cache:caches:CachingProxy", name, {}, opts)
        self.mirror = _url(args, args.mirror_host)
        self.endpoint = (
            local.push_url(args.upstream)
            if isinstance(args.upstream, Local)
            else _url(args, args.endpoint_host)
        )
        is_local, remote_url = isinstance(args.upstream, Local), _remote_url(name, args)
        stored = self._stored(name, args)
        answers = PROBE.format(url=PROBE_URL)
        process = Process(
            host=name,
            image=args.image,
            image_reference=args.image_reference,
            environment={**_environment(args, remote_url), **stored.environment},
            # A cache that is offline writes nothing.
            probe=answers if remote_url is None and not is_local else stored.probe + answers,
            stored=stored,
            files=args.files,
            upstream=args.upstream,
            caches=args.caches,
            labels=self._labels(name, args),
            registry_labels=_registry_labels(_registry(name, args), args.authorities),
            front=args.front,
        )
        self.name = args.placement.run(process, self)
        self.storage = stored.name
        self.image = args.image_reference
        self.register_outputs({"mirror": self.mirror, **self.described()})

    def described(self) -> Mapping[str, pulumi.Input[str]]:
        """Its part of the output `caches`."""
        return {
            "endpoint": self.endpoint,
            "name": self.name,
            "storage": self.storage,
            "image": self.image,
        }

    def _stored(self, name: str, args: CachingProxyArgs) -> Stored:
        match args.caches.storage:
            case S3Storage() as settings:
                return in_object_store(s3_location(settings, name))
            case VolumeStorage() as settings:
                return args.placement.volume(name, settings, self)

    def _labels(self, name: str, args: CachingProxyArgs) -> Mapping[str, pulumi.Input[str]]:
        """The labels of its container or service."""
        of_upstream = label.of_upstream(pulumi.get_stack(), _registry(name, args))
        labels: dict[str, Any] = {**of_upstream, label.MIRROR: self.mirror}
        if isinstance(args.upstream, Local):
            labels[label.LOCAL] = self.endpoint
        if args.access.trust.ca is not None:
            labels[label.CA] = args.access.trust.ca
        return labels


def _registry(name: str, args: CachingProxyArgs) -> str:
    """The registry host in the names of its images."""
    return args.upstream.host if isinstance(args.upstream, Local) else name


def _registry_labels(registry: str, authorities: str) -> Mapping[str, str]:
    """The labels of its registry, from which `cachectl status` knows whom to trust."""
    labels = label.of_upstream(pulumi.get_stack(), registry)
    return {**labels, label.AUTHORITIES: authorities} if authorities else labels


def _url(args: CachingProxyArgs, host: str) -> str:
    return f"{'https' if args.caches.tls else 'http'}://{host}:{args.upstream.port}"


def _remote_url(registry: str, args: CachingProxyArgs) -> str | None:
    """The URL that the cache pulls from: the parent cache's, the upstream's, or none at all."""
    if args.caches.offline or isinstance(args.upstream, Local):
        return None
    parents = args.caches.via.mirrors if args.caches.via else {}
    return parents.get(registry, args.upstream.remote_url)


def _environment(args: CachingProxyArgs, remote_url: str | None) -> dict[str, str]:
    common = {"OTEL_TRACES_EXPORTER": "none", "REGISTRY_LOG_LEVEL": args.caches.logs.level}
    if isinstance(args.upstream, Local):
        special = {"REGISTRY_STORAGE_DELETE_ENABLED": "true"}
    elif remote_url is None:
        # …_READONLY_ENABLED makes distribution 3.1 panic.
        special = {"REGISTRY_STORAGE_MAINTENANCE": "{readonly: {enabled: true}}"}
    else:
        special = _proxy(remote_url)
    address = (
        {"REGISTRY_HTTP_NET": "unix", "REGISTRY_HTTP_ADDR": front.SOCKET} if args.front else {}
    )
    # In addition to the image's own CAs, which are in a file: Go reads both.
    trust = {"SSL_CERT_DIR": FOLDER} if args.authorities else {}
    proxy = args.caches.proxy.variables() if args.caches.proxy else {}
    return {**common, **special, **address, **trust, **proxy, **args.access.environment}


def _proxy(remote_url: str) -> dict[str, str]:
    return {
        "REGISTRY_PROXY_REMOTEURL": remote_url,
        # Images are kept. Once a blob that repositories share has expired, the registry would
        # answer requests for it with status 200 and no content.
        "REGISTRY_PROXY_TTL": "0",
        "REGISTRY_PROXY_EXEC_COMMAND": credential_helper.COMMAND,
        # Not kept, so that a changed password counts from the next request on.
        "REGISTRY_PROXY_EXEC_LIFETIME": "0s",
        # The default of 5 minutes is too short for a large layer over a slow link.
        "REGISTRY_PROXY_CACHEWRITETIMEOUT": "1h",
    }
