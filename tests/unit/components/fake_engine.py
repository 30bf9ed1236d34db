"""A container engine in this process, with the interface of the docker package."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from docker.errors import APIError, ImageNotFound, NotFound

from components import engine
from talos_registry_cache.engine import labels


@dataclass(slots=True)
class FakeContainer:
    """A container; `published` has its addresses and ports on this machine."""

    fake: "FakeEngine"
    name: str
    labels: Mapping[str, str]
    published: Sequence[tuple[str, int]] = ()
    running: bool = True
    networks: Sequence[str] = ()
    volumes: Sequence[str] = ()
    network_mode: str = "bridge"
    processes: Sequence[int] = ()

    @property
    def attrs(self) -> Mapping[str, Any]:
        return {"HostConfig": {"NetworkMode": self.network_mode}}

    def top(self, *, ps_args: str) -> Mapping[str, Any]:
        assert ps_args == "-eo pid", "the output would have more columns"
        return {"Titles": ["PID"], "Processes": [[str(process)] for process in self.processes]}

    @property
    def id(self) -> str:
        return f"id-of-{self.name}"

    def remove(self, *, force: bool, v: bool) -> None:
        assert force or not self.running, "the engine refuses to remove a running container"
        assert v, "its anonymous volumes would be left"
        self.fake.containers_here.remove(self)


@dataclass(slots=True)
class FakeNetwork:
    """A network."""

    fake: "FakeEngine"
    name: str
    labels: Mapping[str, str] | None
    subnets: Sequence[str] = ()
    containers: list[str] = field(default_factory=list)
    driver: str = "bridge"

    def reload(self) -> None:
        """Load the containers, which are always here."""

    def disconnect(self, container: str, *, force: bool) -> None:
        assert force, "the engine would ask a container that may hang"
        if container not in self.containers:
            raise NotFound(f"no such container: {container}")
        self.containers.remove(container)

    def connect(self, container: str) -> None:
        if container not in [one.id for one in self.fake.containers_here]:
            raise NotFound(f"no such container: {container}")
        self.containers.append(container)

    def remove(self) -> None:
        if self.containers:
            raise APIError("403", explanation=f"network {self.name} has active endpoints")
        self.fake.networks_here.remove(self)

    @property
    def attrs(self) -> Mapping[str, Any]:
        return {
            "Name": self.name,
            "Id": f"id-of-{self.name}",
            "Labels": self.labels,
            "IPAM": {"Config": [{"Subnet": subnet} for subnet in self.subnets]},
            "Driver": self.driver,
            "Containers": dict.fromkeys(self.containers) or None,
        }


@dataclass(slots=True)
class FakeService:
    """A service of a Swarm; `desired` is its number of tasks."""

    fake: "FakeEngine"
    name: str
    labels: Mapping[str, str]
    id: str
    template: Mapping[str, Any]
    desired: int = 1
    update: Mapping[str, str] | None = None
    tasks: list[Mapping[str, Any]] = field(default_factory=list)

    @property
    def attrs(self) -> Mapping[str, Any]:
        """The API's answer, without `UpdateStatus` before the first update."""
        running = [task for task in self.tasks if task["Status"]["State"] == "running"]
        spec = {"Name": self.name, "Labels": self.labels, "TaskTemplate": self.template}
        return {
            "ID": self.id,
            "Spec": spec,
            "ServiceStatus": {"RunningTasks": len(running), "DesiredTasks": self.desired},
            **({"UpdateStatus": self.update} if self.update else {}),
        }

    def add_task(
        self,
        state: str = "running",
        *,
        wanted: str = "running",
        template: Mapping[str, Any] | None = None,
        error: str = "",
    ) -> None:
        """Add a task, by default of the current template."""
        made_from = {**(template or self.template)}
        # Only services have it.
        made_from.pop("Runtime", None)
        status = {"State": state, "Message": "started", **({"Err": error} if error else {})}
        self.tasks.append(
            {"Spec": made_from, "ServiceID": self.id, "DesiredState": wanted, "Status": status}
        )


@dataclass
class FakeEngine:
    """The part of `docker.DockerClient` that the components use."""

    bridge: Sequence[Mapping[str, str]] | None = ({"Subnet": "127.0.0.0/8"},)
    containers_here: list[FakeContainer] = field(default_factory=list)
    networks_here: list[FakeNetwork] = field(default_factory=list)
    services_here: list[FakeService] = field(default_factory=list)
    volumes_here: dict[str, Mapping[str, str] | None] = field(default_factory=dict)
    manages_a_swarm: bool = True
    host_name: str = "docker-desktop"
    product: str = "Engine"
    security_options: Sequence[str] = ("name=seccomp,profile=builtin",)
    images_here: dict[str, dict[str, str]] = field(default_factory=dict)
    """The labels of each image, by its name."""

    def __post_init__(self) -> None:
        self.api, self.images = _Api(self), _Images(self)
        self.containers, self.networks = _Containers(self), _Networks(self)
        self.services = _Services(self)

    def info(self) -> Mapping[str, Any]:
        # Without a Swarm, the key is missing.
        swarm = {"ControlAvailable": True} if self.manages_a_swarm else {}
        return {
            "Name": self.host_name,
            "Swarm": swarm,
            "SecurityOptions": self.security_options,
        }

    def add_container(self, name: str, stack: str | None = None, **more: Any) -> FakeContainer:
        container = FakeContainer(self, name, {labels.STACK: stack} if stack else {}, **more)
        self.containers_here.append(container)
        return container

    def add_network(
        self, name: str, stack: str | None = None, subnets: Sequence[str] = (), **more: Any
    ) -> FakeNetwork:
        owner = {labels.STACK: stack} if stack else None
        network = FakeNetwork(self, name, owner, subnets, **more)
        self.networks_here.append(network)
        return network

    def add_service(
        self, name: str, stack: str | None = None, *, ident: str = "", **more: Any
    ) -> FakeService:
        owner = {labels.STACK: stack} if stack else {}
        template = more.pop("template", {"ContainerSpec": {"Image": "registry:3.1.2"}})
        service = FakeService(self, name, owner, ident or f"id-of-{name}", template, **more)
        self.services_here.append(service)
        return service

    def serve(self, monkeypatch: pytest.MonkeyPatch) -> "FakeEngine":
        """Replace the engine of the components."""
        monkeypatch.setattr(engine, "client", lambda: self)
        return self


@dataclass(slots=True)
class _Api:
    fake: FakeEngine

    def version(self) -> Mapping[str, Any]:
        return {"Components": [{"Name": self.fake.product, "Version": "4.3.1"}]}

    def info(self) -> Mapping[str, Any]:
        return self.fake.info()

    def volumes(self) -> Mapping[str, Any]:
        there = self.fake.volumes_here.items()
        return {"Volumes": [{"Name": name, "Labels": found} for name, found in there] or None}

    def networks(self) -> Sequence[Mapping[str, Any]]:
        bridge = {
            "Name": "bridge",
            "Id": "id-of-bridge",
            "Labels": {},
            "IPAM": {"Config": self.fake.bridge},
        }
        return [*(network.attrs for network in self.fake.networks_here), bridge]

    def containers(
        self,
        *,
        all: bool,  # noqa: A002 - docker's name
        filters: Mapping[str, str],
    ) -> Sequence[Mapping[str, Any]]:
        label, _, value = filters["label"].partition("=")
        return [
            {
                "Names": [f"/{container.name}"] if container.name else None,
                "State": "running" if container.running else "exited",
                "Labels": container.labels,
                "NetworkSettings": {
                    "Networks": {one: {"NetworkID": f"id-of-{one}"} for one in container.networks}
                },
                "Mounts": [
                    *({"Type": "volume", "Name": name} for name in container.volumes),
                    {"Type": "bind", "Source": "/etc/hosts"},
                ],
                "Ports": [
                    {"PrivatePort": 5001, "Type": "tcp"},
                    *(
                        {"IP": ip, "PrivatePort": 5000, "PublicPort": port, "Type": "tcp"}
                        for ip, port in container.published
                    ),
                ],
            }
            for container in self.fake.containers_here
            if (all or container.running) and container.labels.get(label) == value
        ]

    def services(self, *, filters: Mapping[str, str], status: bool) -> Sequence[Mapping[str, Any]]:
        assert status, "the engine would not count tasks"
        return [one.attrs for one in self.fake.services_here if one.id == filters["id"]]

    def tasks(self, *, filters: Mapping[str, str]) -> Sequence[Mapping[str, Any]]:
        return [
            task
            for one in self.fake.services_here
            if one.id == filters["service"]
            for task in one.tasks
        ]

    def remove_service(self, service: str) -> None:
        self.fake.services_here = [one for one in self.fake.services_here if one.id != service]


@dataclass(slots=True)
class _Images:
    fake: FakeEngine

    def get(self, name: str) -> SimpleNamespace:
        if name not in self.fake.images_here:
            raise ImageNotFound(name)
        return SimpleNamespace(labels=self.fake.images_here[name])


@dataclass(slots=True)
class _Services:
    fake: FakeEngine

    def list(self, *, filters: Mapping[str, str]) -> Sequence[FakeService]:
        return [one for one in self.fake.services_here if one.name.startswith(filters["name"])]


@dataclass(slots=True)
class _Containers:
    fake: FakeEngine

    def list(
        self,
        *,
        filters: Mapping[str, str] | None = None,
        all: bool = False,  # noqa: A002 - docker's name
    ) -> Sequence[FakeContainer]:
        filters = filters or {}
        return [
            container
            for container in self.fake.containers_here
            if (all or container.running)
            and re.search(filters.get("name", ""), f"/{container.name}")
            and filters.get("publish", "") in {"", *(str(port) for _, port in container.published)}
        ]


@dataclass(slots=True)
class _Networks:
    fake: FakeEngine

    def list(self, *, names: Sequence[str]) -> Sequence[FakeNetwork]:
        (name,) = names
        return [network for network in self.fake.networks_here if re.search(name, network.name)]

    def get(self, ident: str) -> FakeNetwork:
        return next(one for one in self.fake.networks_here if one.attrs["Id"] == ident)
