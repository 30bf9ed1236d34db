"""The settings of a stack's caching proxies."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from components.settings.access import Tls, Via
from components.settings.mistakes import Mistake
from components.settings.placement import EnginePlacement, Placement, SwarmPlacement
from components.settings.storage import Storage, VolumeStorage
from components.settings.values import (
    Address,
    Image,
    MirrorHost,
    Model,
    Name,
    Port,
    RegistryHost,
    RemoteUrl,
    Size,
    Ttl,
    Username,
)
from components.upstreams import CATALOGUE

ANY_ADDRESS = "0.0.0.0"  # noqa: S104 - what a Swarm publishes on
DEFAULT_IMAGE = "registry:3.1.2"


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


class Logs(Model):
    """The log of each cache, as `docker logs` shows it."""

    level: Literal["error", "warn", "info", "debug"] = Field(
        default="info", description="The least severe level that is logged"
    )
    max_size: Size = Field(default="10m", description="Size at which a log file is rotated")
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
    publish_on: Annotated[list[Address], Field(min_length=1)] | None = Field(
        default=None,
        description=(
            "Addresses of this machine on which the ports are open; the default is 127.0.0.1 and "
            "the mirror host, if that is an address"
        ),
    )
    take_over_from: list[Annotated[str, Field(strict=True, min_length=1)]] = Field(
        default=[],
        description=(
            "Other states, as `up` names them, whose stack of the same name on this engine is "
            "taken over: containers and network are replaced, volumes are kept"
        ),
    )
    logs: Logs = Field(default=Logs(), description="Logging of the caches")
    memory_limit: Size = Field(default="512m", description="Memory limit of each cache")

    @field_validator("upstreams", mode="before")
    @classmethod
    def _fill_from_catalogue(cls, value: Any) -> Any:
        if value is None:
            return {}
        return _with_catalogue(value) if isinstance(value, Mapping) else value


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
