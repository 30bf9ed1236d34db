import asyncio
from collections.abc import Mapping
from typing import Any

import pulumi
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components import swarm
from components.engine import TakenError
from components.swarm import SwarmError
from talos_registry_cache.engine import labels
from tests.unit.components import stack_graph
from tests.unit.components.fake_engine import FakeEngine, FakeService

OWN, STRANGER = "dev", "prod"
NAME = "registry-dev-quay-io"

# As GET /services of engine 20.10 has it, and a task all of it but `Runtime`.
TEMPLATE: Mapping[str, Any] = {
    "ContainerSpec": {"Image": "registry:3.1.2", "Env": ["REGISTRY_LOG_LEVEL=info"]},
    "Resources": {"Limits": {"MemoryBytes": 536870912}},
    "ForceUpdate": 0,
    "Runtime": "container",
}
BEFORE = {**TEMPLATE, "ContainerSpec": {"Image": "registry:3.0.0"}}
LESS_MEMORY = {**TEMPLATE, "Resources": {"Limits": {"MemoryBytes": 1024}}}


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    return FakeEngine().serve(monkeypatch)


@pytest.fixture
def service(fake: FakeEngine) -> FakeService:
    return fake.add_service(NAME, OWN, template=TEMPLATE, desired=2)


def missing(service: FakeService) -> str | None:
    return swarm._missing(service.id)


# What a service lacks


def test_a_service_that_all_of_its_nodes_run_as_it_is_now_lacks_nothing(
    service: FakeService,
) -> None:
    service.add_task()
    service.add_task()

    assert missing(service) is None

    service.update = {"State": "completed", "Message": "update completed"}

    assert missing(service) is None


def test_what_a_node_has_run_before_does_not_count(service: FakeService) -> None:
    for _ in range(2):
        service.add_task()
        service.add_task("shutdown", wanted="shutdown", template=BEFORE)
        service.add_task("failed", wanted="shutdown", error="task: non-zero exit (1)")

    assert missing(service) is None


def test_a_service_that_was_just_made_has_no_tasks_and_is_not_up(service: FakeService) -> None:
    assert missing(service) == "0 of 2 nodes run it"

    service.desired = 0

    assert missing(service) == "no node may run it; see caches.placement.nodeLabels"


def test_a_service_that_is_gone_is_told(service: FakeService) -> None:
    with pytest.raises(SwarmError, match="a service is gone"):
        swarm._missing(f"not-{service.id}")


@pytest.mark.parametrize("state", ["new", "pending", "preparing", "starting", "rejected"])
def test_a_node_that_does_not_run_it_yet_is_missing(service: FakeService, state: str) -> None:
    service.add_task()
    service.add_task(state)

    pulls = " (a node gets the image)" if state == "preparing" else ""
    assert missing(service) == f"1 of 2 nodes run it{pulls}"


def test_what_tasks_say_that_cannot_run_is_told_once(service: FakeService) -> None:
    for _ in range(2):
        service.add_task("pending", error="no suitable node (1 node has no such label)")

    assert missing(service) == ("0 of 2 nodes run it (no suitable node (1 node has no such label))")


@pytest.mark.parametrize("older", [BEFORE, LESS_MEMORY])
def test_a_node_whose_turn_has_not_come_is_missing_whatever_has_changed(
    service: FakeService, older: Mapping[str, Any]
) -> None:
    service.add_task()
    service.add_task(template=older)

    assert missing(service) == "1 of 2 nodes run it"


def test_one_that_is_being_stopped_runs_no_longer(service: FakeService) -> None:
    service.add_task()
    service.add_task(wanted="shutdown")

    assert missing(service) == "1 of 2 nodes run it"


def test_a_task_too_many_is_waited_for(service: FakeService) -> None:
    for _ in range(3):
        service.add_task()

    assert missing(service) == "3 of 2 nodes run it"


def test_a_service_is_not_there_before_its_last_node_has_been_watched(service: FakeService) -> None:
    service.add_task()
    service.add_task()
    service.update = {"State": "updating", "Message": "update in progress"}

    assert missing(service) == "its last node is watched"


@pytest.mark.parametrize(
    ("state", "now"),
    [
        ("paused", "the new one on some nodes"),
        ("rollback_completed", "as before"),
        ("rollback_paused", "not yet as before on all nodes"),
    ],
)
def test_an_update_that_failed_is_told_with_what_the_tasks_said(
    service: FakeService, state: str, now: str
) -> None:
    service.template = BEFORE
    service.add_task(template=BEFORE)
    service.add_task(template=BEFORE)
    service.add_task("failed", wanted="shutdown", template=TEMPLATE, error="task: unhealthy")
    service.update = {"State": state, "Message": "rollback completed"}

    with pytest.raises(SwarmError) as failed:
        missing(service)

    assert str(failed.value).startswith(f"the service {NAME} was not updated and is {now}: ")
    assert "task: unhealthy" in str(failed.value)


def test_an_update_that_failed_without_a_word_is_told_with_the_engines(
    service: FakeService,
) -> None:
    service.update = {"State": "paused", "Message": "update paused due to failure"}

    with pytest.raises(
        SwarmError, match="on some nodes: update paused due to failure; see: docker"
    ):
        missing(service)


TASKS = st.lists(
    st.tuples(
        st.sampled_from(["new", "pending", "running", "failed", "shutdown"]),
        st.sampled_from(["running", "shutdown"]),
        st.sampled_from([TEMPLATE, BEFORE, LESS_MEMORY]),
    ),
    max_size=6,
)


@given(tasks=TASKS, desired=st.integers(0, 3))
def test_a_service_is_up_only_when_just_its_nodes_run_just_what_it_is_now(
    tasks: list[tuple[str, str, Mapping[str, Any]]], desired: int
) -> None:
    with pytest.MonkeyPatch.context() as patched:
        fake = FakeEngine().serve(patched)
        service = fake.add_service(NAME, OWN, template=TEMPLATE, desired=desired)
        for state, wanted, template in tasks:
            service.add_task(state, wanted=wanted, template=template)

        is_up = missing(service) is None

    running = [task for task in tasks if task[0] == "running"]
    assert is_up == (running == [("running", "running", TEMPLATE)] * desired and desired > 0)


# Waiting


def test_up_waits_until_a_service_is_there(
    monkeypatch: pytest.MonkeyPatch, service: FakeService
) -> None:
    naps: list[float] = []

    async def nap(seconds: float) -> None:
        naps.append(seconds)
        service.add_task()

    monkeypatch.setattr(asyncio, "sleep", nap)

    assert asyncio.run(swarm.converged([service.id, service.name])) == NAME
    assert naps == [swarm.POLL_S] * 2


def test_a_preview_waits_for_nothing(service: FakeService) -> None:
    def program() -> None:
        declared = pulumi.Output.from_input([service.id, service.name])
        pulumi.export("name", declared.apply(swarm.converged))

    assert stack_graph.run(program, preview=True).outputs == {"name": NAME}


def test_a_service_that_is_stuck_is_told_with_what_it_lacks(
    monkeypatch: pytest.MonkeyPatch, service: FakeService
) -> None:
    monkeypatch.setattr(swarm, "STUCK_AFTER_S", 0)
    service.add_task("pending", error="no suitable node")

    with pytest.raises(SwarmError) as failed:
        asyncio.run(swarm.converged([service.id, service.name]))

    assert str(failed.value) == (
        f"the service {NAME} is not up, and nothing has changed for 0 s: "
        f"0 of 2 nodes run it (no suitable node); see: docker service ps --no-trunc {NAME}"
    )


# Making way


def make_way(name: str = NAME, stack: str = OWN) -> None:
    inputs = {"name": name, "labels": [{"label": labels.STACK, "value": stack}]}
    arguments = pulumi.ResourceHookArgs(
        urn="urn", id="", name="quay.io-service", type="docker:index/service:Service",
        new_inputs=inputs,
    )  # fmt: skip
    asyncio.run(swarm.before_service(arguments))


def test_a_service_that_a_killed_run_has_left_is_removed(fake: FakeEngine) -> None:
    fake.add_service(NAME, OWN)

    make_way()

    assert fake.services_here == []


@pytest.mark.parametrize("owner", [STRANGER, None])
def test_a_service_that_is_somebody_else_s_stays_and_is_told(
    fake: FakeEngine, owner: str | None
) -> None:
    theirs = fake.add_service(NAME, owner)

    with pytest.raises(TakenError, match=f"the service name {NAME} is taken"):
        make_way()

    assert fake.services_here == [theirs]


def test_one_whose_name_only_begins_alike_stays(fake: FakeEngine) -> None:
    other = fake.add_service(f"{NAME}-old", OWN)

    make_way()

    assert fake.services_here == [other]


def test_an_engine_that_manages_no_swarm_is_told_so(fake: FakeEngine) -> None:
    fake.manages_a_swarm = False

    with pytest.raises(SwarmError, match=r"this engine manages none; make one \(docker swarm init"):
        make_way()
