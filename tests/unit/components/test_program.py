"""The program as a whole: `__main__.py` as Pulumi runs it."""

import asyncio
import json
import runpy
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pulumi
import pytest
import yaml
from docker.errors import DockerException

from components import engine, labels
from tests.unit.components import stack_graph
from tests.unit.components.fake_engine import FakeEngine
from tests.unit.components.stack_graph import CONTAINER, NETWORK, Graph

ROOT = Path(__file__).resolve().parents[3]

GATEWAY = "127.0.0.9"
BRIDGE = [{"Subnet": "127.0.0.0/8", "Gateway": GATEWAY}]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    return FakeEngine(bridge=BRIDGE).serve(monkeypatch)


@pytest.fixture(autouse=True)
def _interrupts_are_pytests_again() -> Iterator[None]:
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


def run(caches: Any, *, stack: str = "dev", preview: bool = False) -> Graph:
    return stack_graph.run(
        lambda: runpy.run_path(str(ROOT / "__main__.py"), run_name="__main__"),
        stack=stack,
        preview=preview,
        config={"talos-registry-cache:caches": json.dumps(caches)},
    )


def of_stack(stack: str) -> Any:
    text = (ROOT / f"Pulumi.{stack}.yaml").read_text()
    return yaml.safe_load(text)["config"]["talos-registry-cache:caches"]


@pytest.mark.parametrize("preview", [False, True])
@pytest.mark.usefixtures("fake")
def test_the_outputs_tell_how_to_use_the_caches(*, preview: bool) -> None:
    outputs = run(of_stack("guide"), stack="guide", preview=preview).outputs

    assert outputs["mirrors"] == {
        "docker.io": f"http://{GATEWAY}:5000",
        "k8s.gcr.io": f"http://{GATEWAY}:5001",
        "quay.io": f"http://{GATEWAY}:5002",
    }
    assert outputs["talosctlFlags"] == (
        f"--registry-mirror docker.io=http://{GATEWAY}:5000 "
        f"--registry-mirror k8s.gcr.io=http://{GATEWAY}:5001 "
        f"--registry-mirror quay.io=http://{GATEWAY}:5002"
    )
    assert outputs["caches"].keys() == outputs["mirrors"].keys()
    assert outputs["caches"]["quay.io"] == {
        "endpoint": "http://127.0.0.1:5002",
        "container": "registry-quay.io",
        "volume": "registry-quay.io",
        "image": "registry:3.0.0",
    }


@pytest.mark.usefixtures("fake")
def test_there_are_no_other_outputs() -> None:
    assert run(of_stack("dev")).outputs.keys() == {"mirrors", "caches", "talosctlFlags"}


def test_ports_stay_in_the_order_in_which_the_engine_has_them(fake: FakeEngine) -> None:
    published = [(GATEWAY, 5000), ("127.0.0.1", 5000)]
    fake.add_container("registry-dev-docker.io", "dev", published=published)

    graph = run({"upstreams": {"docker.io": None}})

    ports = graph.one(CONTAINER, "docker.io-container").inputs["ports"]
    assert [(port["ip"], port["external"]) for port in ports] == published


def test_the_hooks_find_what_they_need_in_what_the_program_declares(fake: FakeEngine) -> None:
    graph = run({"upstreams": {"docker.io": {"port": 1024}}, "publishOn": ["192.0.2.1"]})
    hooked = [*graph.all(NETWORK), *graph.all(CONTAINER)]
    for one in hooked:
        fake.add_container(one.inputs["name"], "dev")

    async def create_all() -> None:
        for one in hooked:
            (hook,) = one.before_create
            running = hook(
                pulumi.ResourceHookArgs(
                    urn="", id="", name=one.name, type=one.type, new_inputs=one.inputs
                )
            )
            assert running is not None
            await running
            if one.type == NETWORK:
                fake.add_network(one.inputs["name"], "dev")

    asyncio.run(create_all())

    # The network's namesake is a container, which its hook leaves alone.
    assert [container.name for container in fake.containers_here] == ["registry-dev"]
    assert labels.STACK in fake.containers_here[0].labels


@pytest.mark.usefixtures("fake")
def test_mistakes_end_the_program_with_all_of_them_and_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    caches = {"upstreams": {"docker.io": {"port": 80}}, "ttl": "5 days", "storge": {}}

    with pytest.raises(pulumi.RunError) as ended:
        run(caches)

    head, *lines = str(ended.value).splitlines()
    assert head == "Pulumi.dev.yaml has mistakes, nothing was changed:"
    assert [line.split(":")[0].strip() for line in lines] == [
        'caches.upstreams["docker.io"].port',
        "caches.ttl",
        "caches.storge",
    ]
    assert ended.value.__suppress_context__


def test_an_engine_that_does_not_answer_ends_the_program_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse() -> None:
        raise DockerException("connection refused")

    monkeypatch.setattr(engine, "_client", refuse)

    with pytest.raises(pulumi.RunError, match="the container engine does not answer") as ended:
        run({"upstreams": {"docker.io": None}})

    assert ended.value.__suppress_context__
