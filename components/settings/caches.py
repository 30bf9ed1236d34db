"""The settings of a stack's caching proxies."""

import re
from collections.abc import Collection, Iterator
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field

from .. import names
from .access import Tls, Via
from .front import Front
from .local import Local
from .mistakes import Mistake, Path
from .model import EACH, Context, Model, Needed, Rules, right
from .placement import EnginePlacement, Placement, SwarmPlacement
from .proxy import Proxy
from .retention import Retention
from .storage import S3Storage, Storage, VolumeStorage
from .upstream import Upstream, with_catalogue
from .values import (
    ANY_ADDRESS,
    Addresses,
    DiskSize,
    HostAddress,
    HostName,
    Image,
    Memory,
    MirrorHost,
    Name,
    RegistryHost,
    Text,
)
from .wildcard import Wildcard

DEFAULT_IMAGE = "registry:3.1.2"
DEFAULT_PORTS = {"http": 80, "https": 443}
# The name of a volume is that of a folder, and a service's is one label of a DNS name.
LONGEST_VOLUME_NAME = 255
LONGEST_SERVICE_NAME = 63
AN_UPSTREAM = "at least one upstream, such as docker.io: {port: 5000}"


class Logs(Model):
    """The log of each cache, as `docker logs` shows it."""

    level: Literal["error", "warn", "info", "debug"] = Field(
        default="info", description="Least severe level to log"
    )
    max_size: DiskSize = Field(default="10m", description="Size at which a log file is rotated")
    max_files: Annotated[int, Field(strict=True, ge=1, le=100)] = Field(
        default=3, description="Number of rotated log files to keep"
    )


class Caches(Model):
    """The caches of a stack."""

    upstreams: Annotated[
        dict[RegistryHost, Upstream],
        Field(min_length=1),
        EACH,
        BeforeValidator(with_catalogue),
        Needed(AN_UPSTREAM),
    ] = Field(description="Registries to cache, by registry host")
    image: Image = Field(default=DEFAULT_IMAGE, description="Image of the caches")
    name_prefix: Name | None = Field(
        default=None,
        description=(
            "Prefix of container names, before `-<upstream>`; the default is `registry-<stack>`"
        ),
    )
    storage: Storage = Field(default=VolumeStorage(), description="Where cached images are stored")
    placement: Placement = Field(default=EnginePlacement(), description="Where the caches run")
    tls: Tls | None = Field(
        default=None, description="Certificate of the caches; the default is plain HTTP"
    )
    via: Via | None = Field(
        default=None,
        description="Parent caches to pull from instead of the upstreams",
    )
    proxy: Proxy | None = Field(
        default=None,
        description=(
            "Proxy that the caches use for upstreams, parent caches and an object store; the "
            "default is none"
        ),
    )
    extra_hosts: dict[HostName, HostAddress] = Field(
        default={},
        description=(
            "Addresses of hosts that the caches cannot resolve, by host name, as in /etc/hosts"
        ),
    )
    offline: Annotated[bool, Field(strict=True)] = Field(
        default=False,
        description=(
            "Whether the caches serve only what they hold and never contact an upstream, for a "
            "machine without network"
        ),
    )
    front: Front = Field(
        default=Front(),
        description=("The nginx before each registry; with `placement.replicas`, there is none"),
    )
    wildcard: Wildcard | None = Field(
        default=None,
        description="One more mirror, for all upstreams at one URL; the default is none",
    )
    local: Local | None = Field(
        default=None,
        description="A registry to push your own images to; the default is none",
    )
    retention: Retention | None = Field(
        default=None,
        description="Which images `up` removes; by default, images are kept forever",
    )
    mirror_host: MirrorHost = Field(
        default="auto",
        description=(
            "Host or address where nodes reach this machine; `auto` is the gateway of the docker "
            "bridge, or host.docker.internal if the engine runs in a virtual machine. A rootless "
            "engine needs an address of the machine's own network, here and in `publishOn`"
        ),
    )
    publish_on: Addresses | None = Field(
        default=None,
        description=(
            "Addresses of this machine to publish ports on; the default is 127.0.0.1, and "
            "`mirrorHost` if that is an address"
        ),
    )
    take_over_from: list[Text] = Field(
        default=[],
        description=(
            "Other Pulumi states, as `up` names them, whose stack of the same name on this engine "
            "to take over: containers and network are replaced, volumes are kept"
        ),
    )
    logs: Logs = Field(default=Logs(), description="Logs of the caches")
    memory_limit: Memory = Field(default="512m", description="Memory limit of each cache")

    @property
    def fronts(self) -> Front | None:
        """The settings of the fronts; None for caches without fronts."""
        # A front shares a socket with its registry, so both have to be on the same node.
        return None if getattr(self.placement, "replicas", None) else self.front

    def rules(self, context: Context) -> Rules:
        """The rules across the settings of caches."""
        return (
            self._ports_differ(),
            self._local_has_a_place(),
            self._no_cache_asks_this_stack(),
            self._parents_are_of_upstreams(),
            self._parents_replace_upstreams(),
            self._names_fit_an_engine(context.stack),
            self._names_fit_a_swarm(context.stack),
            self._settings_fit_a_swarm(),
            self._retention_is_safe(),
        )

    def _ports_differ(self) -> Iterator[Mistake]:
        users: dict[int, str] = {}
        for host, port in right(self.upstreams, "port").items():
            if users.setdefault(port, host) != host:
                text = f"found {port}, which {users[port]} uses; allowed: a port of its own"
                yield Mistake(("upstreams", host, "port"), text)
        written: dict[str, Any] = {key: vars(self).get(key) for key in ("wildcard", "local")}
        for key, port in right(written, "port").items():
            name = f"caches.{key}"
            if (user := users.setdefault(port, name)) != name:
                text = f"found {port}, which {user} uses; allowed: a port of its own"
                yield Mistake((key, "port"), text)

    def _local_has_a_place(self) -> Iterator[Mistake]:
        # Without the fields that are wrong.
        written = vars(self)
        local = written.get("local")
        if local is None:
            return
        if isinstance(written.get("placement"), SwarmPlacement):
            text = "found local with caches on a Swarm, which opens ports on all addresses"
            yield Mistake(("local",), f"{text}; allowed: none, or caches on an engine")
        elif isinstance(written.get("storage"), S3Storage):
            text = "found local with an object store; allowed: none, or caches in volumes"
            yield Mistake(("local",), text)
        elif ANY_ADDRESS in (written.get("publish_on") or ()):
            text = f"found local with publishOn {ANY_ADDRESS}, which includes the port for pushes"
            yield Mistake(("local",), f"{text}; allowed: none, or single addresses in publishOn")
        if local.host in written.get("upstreams", ()):
            text = f"found {local.host}, which is caches.local; allowed: one of both"
            yield Mistake(("upstreams", local.host), text)

    def _no_cache_asks_this_stack(self) -> Iterator[Mistake]:
        yield from asking_themselves(self, {self.mirror_host, *(self.publish_on or ())})

    def _parents_are_of_upstreams(self) -> Iterator[Mistake]:
        mirrors = self.via.mirrors if self.via else {}
        for host in sorted(mirrors.keys() - self.upstreams.keys()):
            text = f"found, but caches.upstreams has no {host}"
            yield Mistake(("via", "mirrors", host), f"{text}; allowed: {', '.join(self.upstreams)}")

    def _parents_replace_upstreams(self) -> Iterator[Mistake]:
        replaced = (self.via.mirrors if self.via else {}).keys() & self.upstreams.keys()
        for key in ("ca", "username", "credentials"):
            for host, value in right(self.upstreams, key).items():
                if host in replaced and value is not None:
                    text = "found beside caches.via, which replaces this upstream"
                    yield Mistake(("upstreams", host, key), f"{text}; allowed: one of both")

    def _names_fit_an_engine(self, stack: str) -> Iterator[Mistake]:
        if isinstance(self.placement, SwarmPlacement):
            return
        prefix = names.of_caches(self.name_prefix, stack)
        volumes = getattr(self.storage, "volume_prefix", None) or prefix
        for host in self.upstreams:
            longest = max(len(prefix), len(volumes)) + len(f"-{host}-credentials")
            if longest > LONGEST_VOLUME_NAME:
                text = f"found a volume name of {longest} characters, prefix included"
                yield Mistake(("upstreams", host), f"{text}; allowed: up to {LONGEST_VOLUME_NAME}")

    def _names_fit_a_swarm(self, stack: str) -> Iterator[Mistake]:
        if not isinstance(self.placement, SwarmPlacement):
            return
        prefix = names.of_caches(self.name_prefix, stack)
        if not re.fullmatch(r"[a-zA-Z0-9]([-_]*[a-zA-Z0-9])*", prefix):
            text = f"found {prefix}, which names a network of the Swarm"
            allowed = "letters, digits, dashes and underscores, with a letter or digit at both ends"
            yield Mistake(("namePrefix",), f"{text}; allowed: {allowed}")
        users: dict[str, str] = {}
        for name, host in self._service_names(prefix):
            text = f"found the service name {name}"
            if len(name) > LONGEST_SERVICE_NAME:
                allowed = f"up to {LONGEST_SERVICE_NAME}, with a shorter namePrefix"
                text += f" of {len(name)} characters; allowed: {allowed}"
                yield Mistake(("upstreams", host), text)
            elif users.setdefault(name, host) != host:
                text += f", which {users[name]} has as well; allowed: one of the two in a stack"
                yield Mistake(("upstreams", host), text)

    def _service_names(self, prefix: str) -> Iterator[tuple[str, str]]:
        """The names of services, and the upstreams that they belong to."""
        for host in self.upstreams:
            cache = f"{prefix}-{names.in_names(host)}"
            yield names.service_name(cache), host
            if self.fronts:
                yield names.service_name(names.registry_name(cache)), host

    def _settings_fit_a_swarm(self) -> Iterator[Mistake]:
        if not isinstance(self.placement, SwarmPlacement):
            return
        replicas = self.placement.replicas
        where = f"{replicas} nodes" if replicas else "every node"
        # Without the fields that are wrong.
        written = vars(self)
        storage = written.get("storage")
        if isinstance(storage, VolumeStorage) and replicas != 1:
            text = f"found volume, which is local to a node, for caches on {where}"
            allowed = "s3, or 1 for caches.placement.replicas"
            yield Mistake(("storage", "kind"), f"{text}; allowed: {allowed}")
        if getattr(storage, "on_destroy", "keep") == "delete":
            text = "found delete, but the volumes are on other machines; allowed: keep"
            yield Mistake(("storage", "onDestroy"), text)
        if replicas and written.get("front", Front()) != Front():
            text = "found front with caches.placement.replicas"
            yield Mistake(("front",), f"{text}; allowed: none, or caches on every node")
        if written.get("wildcard") is not None:
            text = "found wildcard, which runs beside the caches on the same engine"
            yield Mistake(("wildcard",), f"{text}; allowed: none")
        if written.get("mirror_host") == "auto":
            text = "found auto, but the Swarm is not this machine"
            yield Mistake(("mirrorHost",), f"{text}; allowed: a name or address of its nodes")
        if written.get("publish_on", [ANY_ADDRESS]) != [ANY_ADDRESS]:
            text = (
                f"found {self.publish_on or 'none'}, but a Swarm opens ports on all addresses of "
                f"its nodes; allowed: [{ANY_ADDRESS}], to confirm that"
            )
            yield Mistake(("publishOn",), text)

    def _retention_is_safe(self) -> Iterator[Mistake]:
        # Without the fields that are wrong.
        written = vars(self)
        if written.get("retention") is None:
            return
        if isinstance(written.get("placement"), SwarmPlacement):
            text = "found for caches on a Swarm, whose volumes are on other machines"
        elif isinstance(written.get("storage"), S3Storage):
            text = "found for an object store, which caches on other machines may use"
        elif written.get("offline"):
            text = "found for offline caches, which cannot fetch a removed image again"
        else:
            return
        yield Mistake(("retention",), f"{text}; allowed: none; use cachectl prune")


def asking_themselves(caches: Caches, hosts: Collection[str]) -> Iterator[Mistake]:
    """URLs that lead caches back to caches of the same stack, with paths below `caches`.

    Args:
        caches: the settings.
        hosts: the names and addresses of the stack's caches.
    """
    users = {port: host for host, port in right(caches.upstreams, "port").items()}
    urls: dict[Path, str] = {
        ("upstreams", host, "remoteUrl"): url
        for host, url in right(caches.upstreams, "remote_url").items()
    }
    if caches.via:
        urls |= {("via", "mirrors", host): url for host, url in caches.via.mirrors.items()}
    for path, url in urls.items():
        found = urlsplit(url)
        port = found.port or DEFAULT_PORTS[found.scheme]
        if caches.extra_hosts.get(str(found.hostname), found.hostname) in hosts and port in users:
            text = f"found {url}, which is this stack's own cache of {users[port]}"
            yield Mistake(path, f"{text}; allowed: the registry's own URL, or another cache's")
