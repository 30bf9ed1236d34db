"""A container engine that lives in this process, as the docker package would show it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from components import engine, labels


@dataclass(slots=True)
class FakeContainer:
    """A container; `published` are the addresses and ports on which it is reached."""

    fake: "FakeEngine"
    name: str
    labels: Mapping[str, str]
    published: Sequence[tuple[str, int]] = ()
    running: bool = True

    def remove(self, *, force: bool, v: bool) -> None:
        assert force or not self.running, "the engine removes no running container unasked"
        assert v, "its anonymous volumes would stay"
        self.fake.containers_here.remove(self)


@dataclass(slots=True)
class FakeNetwork:
    """A network."""

    fake: "FakeEngine"
    name: str
    labels: Mapping[str, str] | None
    subnets: Sequence[str] = ()

    @property
    def attrs(self) -> Mapping[str, Any]:
        return {
            "Name": self.name,
            "Id": f"id-of-{self.name}",
            "Labels": self.labels,
            "IPAM": {"Config": [{"Subnet": subnet} for subnet in self.subnets]},
        }


@dataclass(slots=True)
class FakeEngine:
    """What `docker.DockerClient` offers, as far as the components use it."""

    bridge: Sequence[Mapping[str, str]] | None = ({"Subnet": "127.0.0.0/8"},)
    containers_here: list[FakeContainer] = field(default_factory=list)
    networks_here: list[FakeNetwork] = field(default_factory=list)

    @property
    def api(self) -> "_Api":
        return _Api(self)

    @property
    def containers(self) -> "_Containers":
        return _Containers(self)

    @property
    def networks(self) -> "_Networks":
        return _Networks(self)

    def add_container(self, name: str, stack: str | None = None, **more: Any) -> FakeContainer:
        container = FakeContainer(self, name, {labels.STACK: stack} if stack else {}, **more)
        self.containers_here.append(container)
        return container

    def add_network(
        self, name: str, stack: str | None = None, subnets: Sequence[str] = ()
    ) -> FakeNetwork:
        network = FakeNetwork(self, name, {labels.STACK: stack} if stack else None, subnets)
        self.networks_here.append(network)
        return network

    def serve(self, monkeypatch: pytest.MonkeyPatch) -> "FakeEngine":
        """Be the engine that the components talk to."""
        monkeypatch.setattr(engine, "client", lambda: self)
        return self


@dataclass(slots=True)
class _Api:
    fake: FakeEngine

    def networks(self) -> Sequence[Mapping[str, Any]]:
        bridge = {
            "Name": "bridge",
            "Id": "id-of-bridge",
            "Labels": {},
            "IPAM": {"Config": self.fake.bridge},
        }
        return [*(network.attrs for network in self.fake.networks_here), bridge]

    def containers(self, *, filters: Mapping[str, str]) -> Sequence[Mapping[str, Any]]:
        label, _, value = filters["label"].partition("=")
        return [
            {
                "Names": [f"/{container.name}"],
                "Ports": [
                    {"PrivatePort": 5001, "Type": "tcp"},
                    *(
                        {"IP": ip, "PrivatePort": 5000, "PublicPort": port, "Type": "tcp"}
                        for ip, port in container.published
                    ),
                ],
            }
            for container in self.fake.containers_here
            if container.running and container.labels.get(label) == value
        ]


@dataclass(slots=True)
class _Containers:
    fake: FakeEngine

    def list(
        self,
        *,
        filters: Mapping[str, str],
        all: bool = False,  # noqa: A002 - docker's name
    ) -> Sequence[FakeContainer]:
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
