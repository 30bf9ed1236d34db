"""The settings of a stack's caching proxies."""

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, ValidationInfo, field_validator, model_validator

from talos_registry_cache.registry.catalogue import CATALOGUE

from .. import names
from .access import Tls, Via, in_the_clear
from .mistakes import Mistake, Path, refuse_within
from .placement import EnginePlacement, Placement, SwarmPlacement
from .storage import Storage, VolumeStorage
from .values import (
    ANY_ADDRESS,
    Addresses,
    Image,
    LogSize,
    Memory,
    MirrorHost,
    Model,
    Name,
    Port,
    RegistryHost,
    RemoteUrl,
    Text,
    Ttl,
    Username,
)

DEFAULT_IMAGE = "registry:3.1.2"
DEFAULT_PORTS = {"http": 80, "https": 443}
# The name of a volume is that of a folder, and a service's is one label of a DNS name.
LONGEST_VOLUME_NAME = 255
LONGEST_SERVICE_NAME = 63


class Upstream(Model):
    """One registry that is cached. What it leaves out comes from the catalogue."""

    port: Port = Field(
        description="Port on this machine; most registries of the catalogue have a customary one",
    )
    remote_url: RemoteUrl = Field(
        description="Where the registry's API is; a registry of the catalogue has one",
    )
    image: Image | None = Field(
        default=None, description="Image of this cache, where it differs from the stack's"
    )
    username: Username | None = Field(
        default=None, description="User name at the upstream; its password is in `passwords`"
    )

    @model_validator(mode="after")
    def _keep_the_password_secret(self) -> "Upstream":
        if self.username is not None:
            refuse_within(in_the_clear(self.remote_url))
        return self


class Logs(Model):
    """The log of each cache, as `docker logs` shows it."""

    level: Literal["error", "warn", "info", "debug"] = Field(
        default="info", description="The least severe level that is logged"
    )
    max_size: LogSize = Field(default="10m", description="Size at which a log file is rotated")
    max_files: Annotated[int, Field(strict=True, ge=1, le=100)] = Field(
        default=3, description="Number of rotated log files that are kept"
    )


class Caches(Model):
    """The caching proxies of a stack."""

    upstreams: Annotated[dict[RegistryHost, Upstream], Field(min_length=1)] = Field(
        description="The registries that are cached, by registry host"
    )
    image: Image = Field(default=DEFAULT_IMAGE, description="Image of the caches")
    name_prefix: Name | None = Field(
        default=None,
        description=(
            "Containers are named `<namePrefix>-<upstream>`; the default is `registry-<stack>`"
        ),
    )
    storage: Storage = Field(
        default=VolumeStorage(), description="Where the cached images are kept"
    )
    placement: Placement = Field(default=EnginePlacement(), description="Where the caches run")
    tls: Tls | None = Field(
        default=None, description="The certificate of the caches; without, they speak plain HTTP"
    )
    via: Via | None = Field(
        default=None,
        description="The caches of a team, which these ask instead of the upstreams themselves",
    )
    offline: Annotated[bool, Field(strict=True)] = Field(
        default=False,
        description=(
            "Whether the caches serve what they hold and never ask an upstream, for a machine "
            "without network"
        ),
    )
    ttl: Ttl = Field(default="never", description="How long what is cached is kept, such as 720h")
    mirror_host: MirrorHost = Field(
        default="auto",
        description=(
            "Address at which nodes reach this machine; `auto` is the docker bridge's gateway, "
            "or host.docker.internal where the engine runs in a virtual machine"
        ),
    )
    publish_on: Addresses | None = Field(
        default=None,
        description=(
            "Addresses of this machine on which the ports are open; the default is 127.0.0.1 and "
            "the mirror host, if that is an address"
        ),
    )
    take_over_from: list[Text] = Field(
        default=[],
        description=(
            "Other states, as `up` names them, whose stack of the same name on this engine is "
            "taken over: containers and network are replaced, volumes are kept"
        ),
    )
    logs: Logs = Field(default=Logs(), description="Logging of the caches")
    memory_limit: Memory = Field(default="512m", description="Memory limit of each cache")

    @property
    def images(self) -> frozenset[str]:
        """All images that they name."""
        return frozenset(
            {self.image, *(one.image or self.image for one in self.upstreams.values())}
        )

    @field_validator("upstreams", mode="before")
    @classmethod
    def _fill_from_catalogue(cls, value: Any) -> Any:
        if value is None:
            return {}
        return _with_catalogue(value) if isinstance(value, Mapping) else value

    @model_validator(mode="after")
    def _fit_together(self, info: ValidationInfo) -> "Caches":
        prefix = names.of_caches(self.name_prefix, (info.context or {}).get("stack", ""))
        hosts = {self.mirror_host, *(self.publish_on or ())}
        refuse_within([*asking_themselves(self, hosts), *_in_names(self, prefix)])
        return self


def upstreams_as_written(caches: Any) -> dict[str, Mapping[str, Any]]:
    """The upstreams of settings that may have mistakes: those that are mappings."""
    found = caches.get("upstreams") if isinstance(caches, Mapping) else None
    if not isinstance(found, Mapping):
        return {}
    completed = _with_catalogue(found).items()
    return {host: upstream for host, upstream in completed if isinstance(upstream, Mapping)}


def across_upstreams(upstreams: Mapping[str, Mapping[str, Any]]) -> Iterator[Mistake]:
    """What is wrong with upstreams taken together."""
    users: dict[Any, str] = {}
    for host, upstream in upstreams.items():
        port = upstream.get("port")
        if isinstance(port, int) and users.setdefault(port, host) != host:
            path = ("caches", "upstreams", host, "port")
            yield Mistake(path, f"found {port}, which {users[port]} has; allowed: a free one")


def within_caches(caches: Caches) -> Iterator[Mistake]:
    """What is wrong with settings of caches that are each right, and do not go together."""
    if isinstance(caches.placement, SwarmPlacement):
        yield from _on_swarm(caches, caches.placement)
    if caches.via is None:
        return
    for host in sorted(caches.via.mirrors.keys() - caches.upstreams.keys()):
        text = f"found, but caches.upstreams has no {host}; allowed: {', '.join(caches.upstreams)}"
        yield Mistake(("caches", "via", "mirrors", host), text)
    for host, upstream in caches.upstreams.items():
        if host in caches.via.mirrors and upstream.username is not None:
            text = "found beside caches.via, which is asked instead; allowed: one of both"
            yield Mistake(("caches", "upstreams", host, "username"), text)


def asking_themselves(caches: Caches, hosts: Collection[str]) -> Iterator[Mistake]:
    """URLs of upstreams at which these caches are themselves, below the key `caches`.

    Args:
        caches: the settings.
        hosts: the names and addresses at which the caches are reached.
    """
    users = {upstream.port: host for host, upstream in caches.upstreams.items()}
    urls: dict[Path, str] = {
        ("upstreams", host, "remoteUrl"): upstream.remote_url
        for host, upstream in caches.upstreams.items()
    }
    if caches.via:
        urls |= {("via", "mirrors", host): url for host, url in caches.via.mirrors.items()}
    for path, url in urls.items():
        found = urlsplit(url)
        port = found.port or DEFAULT_PORTS[found.scheme]
        if found.hostname in hosts and port in users:
            text = f"found {url}, which is this stack's own cache of {users[port]}"
            yield Mistake(path, f"{text}; allowed: where the registry itself is, or another cache")


def _in_names(caches: Caches, prefix: str) -> Iterator[Mistake]:
    """Names of caches that an engine or a Swarm would not take.

    Args:
        caches: the settings.
        prefix: what the names begin with.
    """
    if isinstance(caches.placement, SwarmPlacement):
        yield from _in_names_on_swarm(caches, prefix)
        return
    volumes = getattr(caches.storage, "volume_prefix", None) or prefix
    for host in caches.upstreams:
        longest = max(len(prefix), len(volumes)) + len(f"-{host}-credentials")
        if longest > LONGEST_VOLUME_NAME:
            text = f"found a name of {longest} characters; allowed: {LONGEST_VOLUME_NAME}"
            yield Mistake(("upstreams", host), f"{text}, with namePrefix before it")


def _in_names_on_swarm(caches: Caches, prefix: str) -> Iterator[Mistake]:
    if not re.fullmatch(r"[a-zA-Z0-9]([-_]*[a-zA-Z0-9])*", prefix):
        text = f"found {prefix}, which names a network; allowed: letters, digits, - and _ within"
        yield Mistake(("namePrefix",), f"{text}, as a Swarm's networks are named")
    users: dict[str, str] = {}
    for host in caches.upstreams:
        name = names.service_name(f"{prefix}-{names.in_names(host)}")
        if len(name) > LONGEST_SERVICE_NAME:
            text = f"found the service name {name}, of {len(name)} characters"
            yield Mistake(
                ("upstreams", host),
                f"{text}; allowed: {LONGEST_SERVICE_NAME}, with a shorter namePrefix",
            )
        elif users.setdefault(name, host) != host:
            text = f"found the service name {name}, which {users[name]} has"
            yield Mistake(("upstreams", host), f"{text}; allowed: one of its own, in another stack")


def _on_swarm(caches: Caches, placement: SwarmPlacement) -> Iterator[Mistake]:
    """What a Swarm cannot do."""
    at = ("caches",)
    on_several = placement.replicas != 1
    where = f"{placement.replicas} nodes" if placement.replicas else "every node"
    if isinstance(caches.storage, VolumeStorage):
        if on_several:
            text = (
                f"found volume, which is one node's own, for caches that run on {where}; "
                "allowed: s3, or 1 for caches.placement.replicas"
            )
            yield Mistake((*at, "storage", "kind"), text)
        if caches.storage.on_destroy == "delete":
            text = "found delete, but the volumes are other hosts' to delete; allowed: keep"
            yield Mistake((*at, "storage", "onDestroy"), text)
    if on_several and caches.ttl != "never":
        text = f"found {caches.ttl}, but several caches over one store would each delete"
        yield Mistake((*at, "ttl"), f"{text}; allowed: never")
    if caches.mirror_host == "auto":
        text = (
            "found auto, but this machine is not the Swarm; allowed: a name or address of its nodes"
        )
        yield Mistake((*at, "mirrorHost"), text)
    if caches.publish_on != [ANY_ADDRESS]:
        text = (
            f"found {caches.publish_on or 'none'}, but a Swarm opens ports on all addresses of its "
            f"nodes; allowed: [{ANY_ADDRESS}], to say that this is meant"
        )
        yield Mistake((*at, "publishOn"), text)


def _with_catalogue(upstreams: Mapping[str, Any]) -> dict[str, Any]:
    """Upstreams as written, completed with what the catalogue knows of their registries."""
    completed = {}
    for host, upstream in upstreams.items():
        # `docker.io:` with nothing behind it is YAML for null.
        written = {} if upstream is None else upstream
        completed[host] = {**_known(host), **written} if isinstance(written, Mapping) else written
    return completed


def _known(host: str) -> dict[str, Any]:
    known = CATALOGUE.get(host)
    if known is None:
        return {}
    port = {} if known.port is None else {"port": known.port}
    return {"remoteUrl": known.remote_url} | port
