from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pulumi
import pytest

from components import state_owner
from components.belongings import Belonging, Belongings, OwnedByAnotherError
from components.engine import EngineContainer, EngineFacts, EngineNetwork
from talos_registry_cache.engine.labels import GENERATION, STACK, STATE

HERE, THERE = "https://caches.test#ann/caches", "https://caches.test#bob/caches"
OWN = {STACK: "dev", STATE: HERE, GENERATION: "old"}
THEIRS = {**OWN, STATE: THERE}
OLD, NEW = {STATE: HERE, GENERATION: "old"}, {STATE: HERE, GENERATION: "new"}
NETWORK = EngineNetwork("network-id", [], OWN)
CACHE = EngineContainer("running", OWN, ["network-id"], ["cached"])
NAMES = {"cache", "caches", "cached"}


def belongings(
    *,
    cache: EngineContainer | None = CACHE,
    network: EngineNetwork | None = NETWORK,
    volumes: Mapping[str, Mapping[str, str]] | None = None,
) -> Belongings:
    facts = EngineFacts(
        "172.17.0.1",
        {},
        networks={} if network is None else {"caches": network},
        stack="dev",
        containers={} if cache is None else {"cache": cache},
        volumes={"cached": OWN} if volumes is None else volumes,
        generation="new",
    )
    return Belongings(facts, HERE, "caches")


def test_resources_without_ownership_labels_are_not_replaced() -> None:
    before = {STACK: "dev"}
    network = EngineNetwork("network-id", [], before)
    there = belongings(
        cache=replace(CACHE, labels=before), network=network, volumes={"cached": before}
    )

    assert there.marks_of_cache("cache") == {}
    assert there.marks_of_network() == {}
    assert there.labels_of_volume("cached", {STACK: "dev"}) == before


@pytest.mark.parametrize(
    ("there", "marks"),
    [
        *(({"cache": replace(CACHE, state=state)}, OLD) for state in ("running", "restarting")),
        *(
            ({"cache": replace(CACHE, state=state)}, NEW)
            for state in ("exited", "paused", "created", "dead", "removing")
        ),
        ({"cache": None}, NEW),
        ({"network": None}, NEW),
        ({"cache": replace(CACHE, networks=[])}, NEW),
        ({"cache": replace(CACHE, networks=["another-id"])}, NEW),
        ({"network": EngineNetwork("network-id", [], THEIRS)}, NEW),
        ({"network": EngineNetwork("network-id", [])}, NEW),
        ({"volumes": {}}, NEW),
        ({"cache": replace(CACHE, labels=THEIRS)}, NEW),
    ],
)
def test_a_cache_gets_a_new_generation_only_if_it_must_be_replaced(
    there: dict[str, Any], marks: dict[str, str]
) -> None:
    assert belongings(**there).marks_of_cache("cache") == marks


def test_a_network_keeps_its_generation_while_the_stack_owns_it() -> None:
    assert belongings().marks_of_network() == OLD
    assert belongings(network=None).marks_of_network() == NEW
    theirs = EngineNetwork("network-id", [], THEIRS)
    assert belongings(network=theirs).marks_of_network() == NEW


def test_a_writer_container_keeps_its_generation_while_it_exists() -> None:
    assert belongings(cache=replace(CACHE, state="created")).marks_of_writer("cache") == OLD
    assert belongings(cache=None).marks_of_writer("cache") == NEW


@pytest.mark.parametrize("labels", [OWN, THEIRS, {}, {"somebody's": "label"}])
def test_an_existing_volume_keeps_its_labels_and_thereby_its_data(labels: dict[str, str]) -> None:
    found = belongings(volumes={"cached": labels}).labels_of_volume("cached", {STACK: "dev"})

    assert found == labels
    new = belongings(volumes={}).labels_of_volume("cached", {STACK: "dev"})
    assert new == {STACK: "dev", **NEW}


def test_simulated_runs_add_no_ownership_labels() -> None:
    there = Belongings(EngineFacts("172.17.0.1", {}, stack="dev"), HERE, "caches")

    assert there.marks_of_cache("cache") == there.marks_of_network() == {}
    assert there.labels_of_volume("cached", {STACK: "dev"}) == {STACK: "dev"}


# Ownership


def test_resources_of_another_state_are_found() -> None:
    theirs = belongings(
        cache=replace(CACHE, labels=THEIRS),
        network=EngineNetwork("network-id", [], THEIRS),
        volumes={"cached": THEIRS, "not-needed": THEIRS},
    )

    assert list(theirs.of_others(NAMES)) == [
        Belonging("container", "cache", THERE),
        Belonging("network", "caches", THERE),
        Belonging("volume", "cached", THERE),
    ]


def test_own_and_unlabelled_resources_are_not_of_another_state() -> None:
    unmarked = replace(CACHE, labels={STACK: "dev"})
    adopted = {"cached": {**THEIRS, STACK: "another"}}

    assert list(belongings().of_others(NAMES)) == []
    assert list(belongings(cache=unmarked, volumes=adopted).of_others(NAMES)) == []


def test_a_volume_taken_over_belongs_to_the_stack_while_its_cache_does() -> None:
    assert list(belongings(volumes={"cached": THEIRS}).of_others(NAMES)) == []
    assert list(belongings(cache=None, volumes={"cached": THEIRS}).of_others(NAMES)) == [
        Belonging("volume", "cached", THERE)
    ]


def test_resources_of_another_state_are_refused_with_owner_and_choices() -> None:
    with pytest.raises(OwnedByAnotherError) as refused:
        belongings(cache=replace(CACHE, labels=THEIRS)).refuse_others(
            NAMES, ["https://elsewhere.test"]
        )

    message = str(refused.value)
    assert f"{THERE}: container cache" in message
    assert f"this state is {HERE}" in message
    for choice in ("destroy", "caches.namePrefix", f"caches.takeOverFrom: [{THERE}]"):
        assert choice in message


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(pulumi.log, "info", lines.append)
    return lines


def test_resources_of_a_listed_state_are_taken_over_with_a_message(said: list[str]) -> None:
    belongings(cache=replace(CACHE, labels=THEIRS)).refuse_others(NAMES, [THERE])

    assert said == [f"taken over from {THERE}: container cache"]


def test_resources_of_a_deleted_state_are_taken_over(
    said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_owner, "is_gone", lambda other: other == THERE)

    belongings(cache=replace(CACHE, labels=THEIRS)).refuse_others(NAMES, [])

    assert said == [f"taken over from {THERE}, which is gone: container cache"]
