"""The upstreams of caches, and the logins that their registries tell."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from docker.errors import APIError, NotFound
from docker.models.containers import Container
from docker.models.services import Service

from talos_registry_cache.engine import labels, upstreams
from talos_registry_cache.engine.processes import ProcessError
from talos_registry_cache.engine.upstreams import LoginUnknownError
from talos_registry_cache.registry.upstream import Remote

URL = "https://registry-1.docker.io"
ENVIRONMENT = {
    "REGISTRY_PROXY_REMOTEURL": URL,
    "REGISTRY_PROXY_EXEC_COMMAND": "/credentials/helper",
}
LOGIN = b'{"Username": "robot", "Secret": "s3cret"}'
KNOWN = Remote(URL, "PEM", {}, "robot", "s3cret")


class Registry(Container):
    """The container of a registry, whose credential command prints these answers."""

    def __init__(
        self,
        *answers: bytes | Exception,
        environment: Mapping[str, str] = ENVIRONMENT,
        status: str = "running",
    ) -> None:
        variables = [f"{name}={value}" for name, value in environment.items()]
        config = {"Env": variables, "Labels": {labels.AUTHORITIES: "PEM"}}
        super().__init__({"Name": "/registry", "Config": config, "State": {"Status": status}})
        self.answers = list(answers)
        self.commands: list[Sequence[str]] = []

    def exec_run(self, cmd: Any, *_: Any, **__: Any) -> Any:
        self.commands.append(cmd)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return 0, answer


class Engine:
    """An engine with a front, the registry behind it, and services."""

    def __init__(self, registry: Registry | None, *services: Service) -> None:
        front = Container({"Config": {"Labels": {labels.REGISTRY: "registry"}}})
        self.there = {"front": front, "registry": registry} if registry else {}
        self.all = list(services)

    @property
    def containers(self) -> "Engine":
        return self

    @property
    def services(self) -> "Engine":
        return self

    def get(self, name: str) -> Container | None:
        if name not in self.there:
            raise NotFound(name)
        return self.there[name]

    def list(self, filters: Mapping[str, str]) -> Sequence[Service]:
        return [one for one in self.all if one.name == filters["name"]]

    def info(self) -> Mapping[str, Any]:
        return {"Swarm": {"ControlAvailable": bool(self.all)}}


def find(registry: Registry, name: str = "front") -> Remote | None:
    engine: Any = Engine(registry)
    return upstreams.find(engine, name)


@pytest.mark.parametrize("name", ["front", "registry"])
def test_a_registry_tells_its_login_for_the_upstream(name: str) -> None:
    registry = Registry(LOGIN)

    assert find(registry, name) == KNOWN
    assert registry.commands == [["sh", "-c", "/credentials/helper get </dev/null"]]


def test_an_answer_that_a_busy_engine_loses_is_asked_for_again() -> None:
    assert find(Registry(b"", LOGIN[:9], LOGIN)) == KNOWN
    with pytest.raises(
        LoginUnknownError, match="cannot read the login of registry for its upstream"
    ):
        find(Registry(b"", b"", b""))


def test_an_engine_that_fails_is_an_error() -> None:
    with pytest.raises(LoginUnknownError, match="for its upstream: no"):
        find(Registry(APIError("no")))


def test_a_registry_that_does_not_run_has_an_upstream_without_a_login() -> None:
    assert find(Registry(status="exited")) == Remote(URL, "PEM")


def test_the_local_registry_has_no_upstream() -> None:
    assert find(Registry(environment={})) is None


def test_the_upstream_of_a_service_has_no_login() -> None:
    front, registry = (
        Service(
            {
                "Spec": {
                    "Name": name,
                    "Labels": found,
                    "TaskTemplate": {
                        "ContainerSpec": {"Env": [f"{k}={v}" for k, v in env.items()]}
                    },
                }
            }
        )
        for name, found, env in (
            ("front", {labels.REGISTRY: "registry"}, {}),
            ("registry", {labels.AUTHORITIES: "PEM"}, ENVIRONMENT),
        )
    )
    engine: Any = Engine(None, front, registry)
    alone: Any = Engine(None, front)

    assert upstreams.find(engine, "front") == Remote(URL, "PEM")
    assert upstreams.find(engine, "registry") == Remote(URL, "PEM")
    with pytest.raises(ProcessError, match="there is no service registry"):
        upstreams.find(alone, "front")
