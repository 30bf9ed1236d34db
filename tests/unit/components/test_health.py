import asyncio
from collections.abc import Mapping
from typing import Any

import pulumi
import pytest
from docker.errors import DockerException, NotFound

from components import engine, hooks

STARTING: Mapping[str, Any] = {"Status": "starting", "Log": [{"Output": "connection refused"}]}
HEALTHY: Mapping[str, Any] = {"Status": "healthy"}
UNHEALTHY: Mapping[str, Any] = {"Status": "unhealthy", "Log": [{"Output": "it is full\n"}]}


class Container:
    """A container with one health per poll; None before it exists."""

    def __init__(self, *healths: Mapping[str, Any] | DockerException | None) -> None:
        self.left = list(healths)
        self.attrs: dict[str, Any] = {}

    @property
    def containers(self) -> "Container":
        return self

    def get(self, name: str) -> "Container":
        assert name == "cache"
        match self.left.pop(0):
            case None:
                raise NotFound("no such container")
            case DockerException() as error:
                raise error
            case found:
                self.attrs = {"State": {"Status": "running", "Health": found}}
                return self


def warned_of(monkeypatch: pytest.MonkeyPatch, container: Container) -> list[str]:
    """The warnings about a container while it is watched."""
    warned: list[str] = []
    monkeypatch.setattr(engine, "client", lambda: container)
    monkeypatch.setattr(hooks, "HEALTH_POLL_S", 0)
    monkeypatch.setattr(pulumi.log, "warn", warned.append)
    monkeypatch.setattr(pulumi.log, "debug", lambda _: None)

    async def watch() -> None:
        arguments = pulumi.ResourceHookArgs(
            urn="", id="", name="", type="", new_inputs={"name": "cache"}
        )
        await hooks.watch_health(arguments)
        await asyncio.gather(*hooks._watches)

    asyncio.run(watch())
    assert container.left == []
    assert not hooks._watches
    return warned


def test_an_unhealthy_container_is_reported_once_with_the_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    container = Container(None, STARTING, UNHEALTHY, UNHEALTHY)

    assert warned_of(monkeypatch, container) == [
        "cache is unhealthy: it is full; see: docker logs cache"
    ]


def test_a_front_that_waited_for_its_registry_is_not_reported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert warned_of(monkeypatch, Container(None, UNHEALTHY, HEALTHY)) == []
    assert warned_of(monkeypatch, Container(UNHEALTHY, STARTING, UNHEALTHY, HEALTHY)) == []


def test_a_healthy_container_is_no_longer_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    assert warned_of(monkeypatch, Container(None, STARTING, HEALTHY)) == []


def test_an_engine_that_does_not_answer_is_left_to_the_provider_to_report(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert warned_of(monkeypatch, Container(DockerException("gone"))) == []
