"""`up` tries whether nodes reach the mirrors whenever containers of the caches have changed."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pulumi
import pytest

from components import dynamic_provider, reachable
from components.engine import EngineFacts, EngineNetwork
from talos_registry_cache.engine import reachability
from talos_registry_cache.engine.reachability import ReachabilityError
from tests.unit.components.declared_caches import GATEWAY, declare, engine_with
from tests.unit.components.stack_graph import Declared, image_id

STASH = "pulumi:index:Stash"
WITH_BRIDGE = EngineFacts(GATEWAY, {}, {reachability.NETWORK: EngineNetwork("1", [])})
UPSTREAMS = {"docker.io": None, "quay.io": None}


def declared(facts: EngineFacts = WITH_BRIDGE, **caches: Any) -> list[Declared]:
    return declare({"upstreams": UPSTREAMS, **caches}, facts=facts).all(STASH)


def test_all_mirrors_are_requested_again_if_a_container_is_replaced() -> None:
    (found,) = declared(wildcard={})

    assert found.inputs["input"] == {
        "mirrors": {
            "docker.io": f"http://{GATEWAY}:5000",
            "quay.io": f"http://{GATEWAY}:5002",
            "*": f"http://{GATEWAY}:5009",
        },
        "image": image_id("registry:3.1.2"),
        "containers": ["docker.io-container-id", "quay.io-container-id", "wildcard-id"],
    }
    assert found.before_create == found.before_update == (reachable.check,)


@pytest.mark.parametrize("caches", [{"publishOn": ["127.0.0.1"]}, {"mirrorHost": "127.0.0.1"}])
def test_mirrors_that_are_not_for_nodes_are_not_requested(caches: Mapping[str, Any]) -> None:
    assert declared(**caches) == []


def test_nothing_is_requested_without_another_network() -> None:
    assert declared(EngineFacts(GATEWAY, {})) == []


def test_nothing_is_requested_for_the_preview_of_a_pull_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(dynamic_provider.SIMULATE, "1")

    assert declared() == []


MIRRORS = {"docker.io": f"http://{GATEWAY}:5000"}


def check(monkeypatch: pytest.MonkeyPatch, problems: Mapping[str, str]) -> None:
    def request(_: Any, image: str, mirrors: Mapping[str, str]) -> Mapping[str, str]:
        assert (image, mirrors) == ("an image", MIRRORS)
        return problems

    monkeypatch.setattr(reachability, "problems", request)
    inputs = {"input": {"mirrors": MIRRORS, "image": "an image", "containers": ["1"]}}
    arguments = pulumi.ResourceHookArgs(urn="", id="", name="", type="", new_inputs=inputs)
    with engine_with(WITH_BRIDGE):
        asyncio.run(reachable.check(arguments))


def test_up_fails_if_a_mirror_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    check(monkeypatch, {})
    with pytest.raises(ReachabilityError, match=f"docker.io at {MIRRORS['docker.io']}: no answer"):
        check(monkeypatch, {"docker.io": "no answer"})
