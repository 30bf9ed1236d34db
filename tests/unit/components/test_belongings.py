from collections.abc import Mapping
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


def changed(**changes: Any) -> EngineContainer:
    return EngineContainer(
        **{
            "state": CACHE.state,
            "labels": CACHE.labels,
            "networks": CACHE.networks,
            "volumes": CACHE.volumes,
            **changes,
        }
    )


@pytest.mark.parametrize("state", ["running", "restarting"])
def test_a_sound_cache_keeps_its_marks(state: str) -> None:
    assert belongings(cache=changed(state=state)).marks_of_cache("cache") == OLD


def test_what_was_made_before_there_were_marks_is_not_replaced_for_their_sake() -> None:
    before = {STACK: "dev"}
    network = EngineNetwork("network-id", [], before)
    there = belongings(cache=changed(labels=before), network=network, volumes={"cached": before})

    assert there.marks_of_cache("cache") == {}
    assert there.marks_of_network() == {}
    assert there.labels_of_volume("cached", {STACK: "dev"}) == before


@pytest.mark.parametrize("state", ["exited", "paused", "created", "dead", "removing"])
def test_a_cache_that_does_not_run_is_marked_anew(state: str) -> None:
    assert belongings(cache=changed(state=state)).marks_of_cache("cache") == NEW


@pytest.mark.parametrize(
    "there",
    [
        belongings(cache=None),
        belongings(network=None),
        belongings(cache=changed(networks=[])),
        belongings(cache=changed(networks=["another-id"])),
        belongings(network=EngineNetwork("network-id", [], THEIRS)),
        belongings(network=EngineNetwork("network-id", [])),
        belongings(volumes={}),
        belongings(cache=changed(labels=THEIRS)),
    ],
    ids=[
        "removed",
        "network removed",
        "on no network",
        "on another network",
        "on a network of another state",
        "on a network of a stranger",
        "volume gone",
        "of another state",
    ],
)
def test_a_cache_that_lacks_something_is_marked_anew(there: Belongings) -> None:
    assert there.marks_of_cache("cache") == NEW


def test_a_network_is_sound_while_it_is_there_and_the_stack_s() -> None:
    assert belongings().marks_of_network() == OLD
    assert belongings(network=None).marks_of_network() == NEW
    theirs = EngineNetwork("network-id", [], THEIRS)
    assert belongings(network=theirs).marks_of_network() == NEW


def test_a_container_that_never_runs_is_sound_while_it_is_there() -> None:
    assert belongings(cache=changed(state="created")).marks_of_writer("cache") == OLD
    assert belongings(cache=None).marks_of_writer("cache") == NEW


@pytest.mark.parametrize("labels", [OWN, THEIRS, {}, {"somebody's": "label"}])
def test_a_volume_that_is_there_keeps_its_labels_and_so_its_data(labels: dict[str, str]) -> None:
    found = belongings(volumes={"cached": labels}).labels_of_volume("cached", {STACK: "dev"})

    assert found == labels


def test_nothing_is_marked_where_there_is_no_generation() -> None:
    there = Belongings(EngineFacts("172.17.0.1", {}, stack="dev"), HERE, "caches")

    assert there.marks_of_cache("cache") == there.marks_of_network() == {}
    assert there.labels_of_volume("cached", {STACK: "dev"}) == {STACK: "dev"}


def test_a_volume_that_is_not_there_is_marked_anew() -> None:
    assert belongings(volumes={}).labels_of_volume("cached", {STACK: "dev"}) == {
        STACK: "dev",
        **NEW,
    }


# Whose it is


def test_what_another_state_has_made_is_found() -> None:
    theirs = belongings(
        cache=changed(labels=THEIRS),
        network=EngineNetwork("network-id", [], THEIRS),
        volumes={"cached": THEIRS, "not-needed": THEIRS},
    )

    assert list(theirs.of_others(NAMES)) == [
        Belonging("container", "cache", THERE),
        Belonging("network", "caches", THERE),
        Belonging("volume", "cached", THERE),
    ]


def test_nothing_is_another_s_that_is_the_stack_s_own_or_nobody_s() -> None:
    unmarked = changed(labels={STACK: "dev"})
    adopted = {"cached": {**THEIRS, STACK: "another"}}

    assert list(belongings().of_others(NAMES)) == []
    assert list(belongings(cache=unmarked, volumes=adopted).of_others(NAMES)) == []


def test_a_volume_that_was_taken_over_is_the_stack_s_while_its_cache_is() -> None:
    assert list(belongings(volumes={"cached": THEIRS}).of_others(NAMES)) == []
    assert list(belongings(cache=None, volumes={"cached": THEIRS}).of_others(NAMES)) == [
        Belonging("volume", "cached", THERE)
    ]


def test_what_is_another_s_is_refused_with_whose_it_is_and_what_to_do() -> None:
    with pytest.raises(OwnedByAnotherError) as refused:
        belongings(cache=changed(labels=THEIRS)).refuse_others(NAMES, ["https://elsewhere.test"])

    message = str(refused.value)
    assert f"{THERE}: container cache, volume cached" not in message  # the volume is unmarked
    assert f"{THERE}: container cache" in message
    assert f"this state is {HERE}" in message
    for choice in ("destroy", "caches.namePrefix", f"caches.takeOverFrom: [{THERE}]"):
        assert choice in message


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(pulumi.log, "info", lines.append)
    return lines


def test_what_may_be_taken_over_is_and_that_is_said(said: list[str]) -> None:
    belongings(cache=changed(labels=THEIRS)).refuse_others(NAMES, [THERE])

    assert said == [f"taken over from {THERE}: container cache"]


def test_what_a_state_has_made_that_is_gone_is_taken_over(
    said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_owner, "is_gone", lambda other: other == THERE)

    belongings(cache=changed(labels=THEIRS)).refuse_others(NAMES, [])

    assert said == [f"taken over from {THERE}, which is gone: container cache"]


def test_nothing_is_said_where_nothing_is_another_s(said: list[str]) -> None:
    belongings().refuse_others(NAMES, [THERE])

    assert said == []
