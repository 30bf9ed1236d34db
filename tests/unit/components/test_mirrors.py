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
    """The mirrors and endpoints that are on offer, as the outputs of a program."""
    offered: list[Mirrors] = []

    def program() -> None:
        found = offer()
        offered.append(found)
        pulumi.export("mirrors", found.mirrors)
        pulumi.export("endpoints", found.endpoints)

    return stack_graph.run(program, **run).outputs, offered


def test_without_caches_there_are_no_mirrors() -> None:
    outputs, (offered,) = told(Mirrors)

    assert outputs == {"mirrors": {}, "endpoints": {}}
    assert offered.after == ()


@pytest.mark.parametrize("preview", [False, True])
def test_a_stacks_own_caches_are_on_offer_once_they_are_there(*, preview: bool) -> None:
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
def test_the_caches_of_another_stack_are_on_offer_and_nothing_is_waited_for(
    *, preview: bool
) -> None:
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


def test_what_lets_clients_in_comes_from_the_other_stack_as_well() -> None:
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
def test_another_stack_that_has_no_caches_ends_the_program_without_a_traceback(
    outputs: dict[str, Any],
) -> None:
    with pytest.raises(pulumi.RunError) as ended:
        told(lambda: mirrors.of_stack("dev"), stack="qemu", other_stacks={OTHER: outputs})

    assert str(ended.value) == (
        "mirrorsFrom: found dev, a stack that has no caches, or is not up; "
        "allowed: one that has, once `pulumi up --stack dev` is done"
    )
