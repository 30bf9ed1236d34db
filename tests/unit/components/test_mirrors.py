from collections.abc import Callable, Mapping
from typing import Any

import pulumi
import pytest

from components import mirrors, settings
from components.engine import EngineFacts
from components.mirrors import Mirrors
from tests.unit.components import stack_graph
from tests.unit.components.declared_caches import cache_of, engine_with

GATEWAY = "172.17.0.1"
OTHER = "organization/talos-registry-cache/dev"
OUTPUTS = {
    "mirrors": {"docker.io": "http://172.17.0.1:5000", "quay.io": "http://172.17.0.1:5002"},
    "caches": {
        "docker.io": {"endpoint": "http://127.0.0.1:5000", "container": "registry-dev-docker.io"},
        "quay.io": {"endpoint": "http://127.0.0.1:5002", "container": "registry-dev-quay.io"},
    },
    "talosctlFlags": "",
}


def told(offer: Callable[[], Mirrors], **run: Any) -> tuple[Mapping[str, Any], list[Mirrors]]:
    """The mirrors and endpoints as outputs of a program, and the offered mirrors."""
    offered: list[Mirrors] = []

    def program() -> None:
        found = offer()
        offered.append(found)
        pulumi.export("mirrors", found.mirrors)
        pulumi.export("endpoints", found.endpoints)

    return stack_graph.run(program, **run).outputs, offered


@pytest.mark.parametrize("preview", [False, True])
def test_mirrors_of_own_caches_wait_for_the_caches(*, preview: bool) -> None:
    parsed = settings.parse("dev", {"caches": {"upstreams": {"docker.io": None, "quay.io": None}}})
    made: list[pulumi.Resource] = []

    def offer() -> Mirrors:
        cache = cache_of(parsed)
        made.append(cache)
        return mirrors.of_cache(cache)

    with engine_with(EngineFacts(GATEWAY, {})):
        outputs, (offered,) = told(offer, preview=preview)

    assert outputs["mirrors"] == OUTPUTS["mirrors"]
    assert outputs["endpoints"] == {
        "docker.io": "http://127.0.0.1:5000",
        "quay.io": "http://127.0.0.1:5002",
    }
    assert offered.after == made


@pytest.mark.parametrize("preview", [False, True])
def test_mirrors_of_another_stack_wait_for_nothing(*, preview: bool) -> None:
    outputs, (offered,) = told(
        lambda: mirrors.of_stack("dev"),
        stack="qemu",
        preview=preview,
        other_stacks={OTHER: OUTPUTS},
    )

    assert outputs["mirrors"] == OUTPUTS["mirrors"]
    assert outputs["endpoints"] == {
        "docker.io": "http://127.0.0.1:5000",
        "quay.io": "http://127.0.0.1:5002",
    }
    assert offered.after == ()


def test_ca_and_reader_come_from_the_other_stack_too() -> None:
    reader = {"username": "adam", "password": "s3cret"}

    def offer() -> Mirrors:
        found = mirrors.of_stack("dev")
        pulumi.export("ca", found.trust.ca)
        pulumi.export("reader", found.trust.reader)
        return found

    closed, _ = told(
        offer, stack="qemu", other_stacks={OTHER: {**OUTPUTS, "ca": "PEM", "reader": reader}}
    )
    is_open, _ = told(offer, stack="qemu", other_stacks={OTHER: OUTPUTS})

    assert (closed["ca"], closed["reader"]) == ("PEM", reader)
    assert (is_open.get("ca"), is_open.get("reader")) == (None, None)


@pytest.mark.parametrize("outputs", [{}, {"clusters": {}}])
def test_another_stack_without_caches_is_an_error(outputs: dict[str, Any]) -> None:
    with pytest.raises(pulumi.RunError, match="mirrorsFrom: found dev, a stack that has no caches"):
        told(lambda: mirrors.of_stack("dev"), stack="qemu", other_stacks={OTHER: outputs})
