import asyncio
from collections.abc import Mapping
from typing import Any

import pulumi
import pytest

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


def missing(service: FakeService, *, is_updated: bool = True) -> str | None:
    return swarm._missing(service.id, is_updated=is_updated)


# What is missing


RUNS: Mapping[str, Any] = {}
FAILED = {"state": "failed", "wanted": "shutdown", "error": "task: non-zero exit (1)"}
NO_NODE = {"state": "pending", "error": "no suitable node"}


@pytest.mark.parametrize(
    ("tasks", "update", "expected"),
    [
        ([RUNS, RUNS], None, None),
        ([RUNS, RUNS], "completed", None),
        ([RUNS, RUNS], "updating", "its last node is watched"),
        ([RUNS, FAILED, RUNS, {"state": "shutdown", "template": BEFORE}], None, None),
        ([], None, "0 of 2 nodes run it"),
        ([RUNS, {"wanted": "shutdown"}], None, "1 of 2 nodes run it"),
        ([RUNS, {"template": BEFORE}], None, "1 of 2 nodes run it"),
        ([RUNS, {"template": LESS_MEMORY}], None, "1 of 2 nodes run it"),
        ([RUNS, {"state": "rejected"}], None, "1 of 2 nodes run it"),
        ([RUNS, {"state": "preparing"}], None, "1 of 2 nodes run it (a node gets the image)"),
        ([NO_NODE, NO_NODE], None, "0 of 2 nodes run it (no suitable node)"),
        ([RUNS, RUNS, RUNS], None, "3 of 2 nodes run it"),
    ],
)
def test_a_service_is_up_once_all_of_its_nodes_run_its_current_task(
    service: FakeService,
    tasks: list[dict[str, Any]],
    update: str | None,
    expected: str | None,
) -> None:
    for task in tasks:
        service.add_task(**task)
    service.update = {"State": update, "Message": update} if update else None

    assert missing(service) == expected


def test_a_service_without_nodes_and_a_removed_one_are_reported(service: FakeService) -> None:
    service.desired = 0

    assert missing(service) == "no node may run it; see caches.placement.nodeLabels"
    with pytest.raises(SwarmError, match="a service is gone"):
        swarm._missing(f"not-{service.id}", is_updated=False)


@pytest.mark.parametrize(
    ("state", "now"),
    [
        ("paused", "the new one on some nodes"),
        ("rollback_completed", "as before"),
        ("rollback_paused", "not yet as before on all nodes"),
    ],
)
def test_a_failed_update_is_reported_with_the_errors_of_its_tasks(
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
    service.tasks.clear()
    with pytest.raises(SwarmError, match=f"{now}: rollback completed; see: docker"):
        missing(service)


def test_a_service_that_is_declared_as_it_was_before_a_failed_update_is_up(
    service: FakeService,
) -> None:
    service.add_task()
    service.add_task()
    service.update = {"State": "rollback_completed", "Message": "rollback completed"}

    assert missing(service, is_updated=False) is None


# Waiting


def test_up_waits_until_a_service_is_up(
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


def test_a_stuck_service_is_reported_with_what_is_missing(
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


def test_only_a_leftover_service_of_the_same_name_is_removed(fake: FakeEngine) -> None:
    fake.add_service(NAME, OWN)
    other = fake.add_service(f"{NAME}-old", OWN)

    make_way()

    assert fake.services_here == [other]


@pytest.mark.parametrize("owner", [STRANGER, None])
def test_the_service_of_someone_else_is_kept_and_reported(
    fake: FakeEngine, owner: str | None
) -> None:
    theirs = fake.add_service(NAME, owner)

    with pytest.raises(TakenError, match=f"the service name {NAME} is taken"):
        make_way()

    assert fake.services_here == [theirs]


def test_an_engine_that_is_no_swarm_manager_is_an_error(fake: FakeEngine) -> None:
    fake.manages_a_swarm = False

    with pytest.raises(SwarmError, match=r"this engine manages none; make one \(docker swarm init"):
        make_way()
