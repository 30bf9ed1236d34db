"""The program as a whole: `__main__.py` as Pulumi runs it."""

import asyncio
import json
import runpy
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pulumi
import pytest
import yaml
from docker.errors import DockerException

from components import engine
from talos_registry_cache.engine import file_owner, labels, leftovers
from tests.unit.components import stack_graph
from tests.unit.components.fake_engine import FakeEngine
from tests.unit.components.stack_graph import (
    CONTAINER,
    IMAGE,
    LOCAL_CLUSTER,
    NETWORK,
    REGISTRY_CACHE,
    SERVICE,
    Graph,
    Secret,
    image_id,
)
from tests.unit.talos import programs

ROOT = Path(__file__).resolve().parents[3]

GATEWAY = "127.0.0.9"
BRIDGE = [{"Subnet": "127.0.0.0/8", "Gateway": GATEWAY}]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    return FakeEngine(bridge=BRIDGE).serve(monkeypatch)


@pytest.fixture(autouse=True)
def cleaned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The stacks whose leftovers the program has removed."""
    stacks: list[str] = []
    monkeypatch.setattr(leftovers, "remove", lambda _, stack: stacks.append(stack))
    return stacks


@pytest.fixture(autouse=True)
def _interrupts_are_pytests_again() -> Iterator[None]:
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


def run(
    caches: Any = None,
    *,
    clusters: Any = None,
    mirrors_from: str | None = None,
    secrets: Mapping[str, Any] | None = None,
    stack: str = "dev",
    **rest: Any,
) -> Graph:
    encrypted = {key: json.dumps(value) for key, value in (secrets or {}).items()}
    keys = {
        **encrypted,
        "caches": caches and json.dumps(caches),
        "clusters": clusters and json.dumps(clusters),
        "mirrorsFrom": mirrors_from,
    }
    return stack_graph.run(
        lambda: runpy.run_path(str(ROOT / "__main__.py"), run_name="__main__"),
        stack=stack,
        config={f"talos-registry-cache:{key}": value for key, value in keys.items() if value},
        secret_keys=tuple(f"talos-registry-cache:{key}" for key in encrypted),
        **rest,
    )


def of_stack(stack: str, key: str = "caches") -> Any:
    text = (ROOT / f"Pulumi.{stack}.yaml").read_text()
    return yaml.safe_load(text)["config"][key]


def paths_in(error: pulumi.RunError) -> set[str]:
    """The paths of the reported mistakes."""
    head, *lines = str(error).splitlines()
    assert head == "Pulumi.dev.yaml has mistakes, nothing was changed:"
    return {line.partition(": ")[0].strip() for line in lines}


@pytest.fixture
def talosctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A talosctl on PATH."""
    path = tmp_path / "talosctl"
    programs.that_prints(path, programs.VERSION_OUTPUT.format(tag="v1.13.0"))
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    return path


@pytest.mark.parametrize("preview", [False, True])
@pytest.mark.usefixtures("fake")
def test_the_outputs_have_the_mirrors_and_flags_of_the_caches(*, preview: bool) -> None:
    outputs = run(of_stack("guide"), stack="guide", preview=preview).outputs

    assert outputs.keys() == {"mirrors", "caches", "talosctlFlags"}
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
        "name": "registry-quay.io",
        "storage": "registry-quay.io",
        "image": "registry:3.0.0",
    }


@pytest.mark.usefixtures("fake")
def test_the_wildcard_mirror_is_a_mirror_and_a_flag_that_shells_do_not_expand() -> None:
    outputs = run({"upstreams": {"quay.io": None}, "wildcard": {"port": 5050}}).outputs

    assert outputs["mirrors"]["*"] == f"http://{GATEWAY}:5050"
    assert outputs["talosctlFlags"].endswith(f" --registry-mirror '*=http://{GATEWAY}:5050'")
    assert outputs["caches"].keys() == {"quay.io"}


# A team


@pytest.mark.parametrize("preview", [False, True])
def test_the_team_stack_is_a_swarm_with_tls_and_readers(fake: FakeEngine, *, preview: bool) -> None:
    caches = of_stack("team")
    for host in caches["upstreams"]:
        for part in ("service", "registry"):
            made = stack_graph.service_id(f"{host}-{part}")
            fake.add_service(f"{host}-{part}", "team", ident=made).add_task()

    graph = run(
        caches,
        secrets={
            "s3Keys": {"accessKey": "a", "secretKey": "s"},
            "readers": {"adam": "s3cret"},
        },
        stack="team",
        preview=preview,
    )

    services = {
        f"{host}-{part}" for host in caches["upstreams"] for part in ("service", "registry")
    }
    assert set(graph.names(SERVICE)) == services
    assert graph.names(CONTAINER) == []
    assert graph.outputs.keys() == {"mirrors", "caches", "talosctlFlags", "ca", "reader"}
    assert graph.outputs["mirrors"]["quay.io"] == "https://caches.team.example:5002"
    if not preview:
        assert graph.outputs["ca"] == stack_graph.AUTHORITY_MADE["ca"]
    assert graph.outputs["reader"] == Secret({"username": "adam", "password": "s3cret"})


# Clusters


@pytest.mark.parametrize("preview", [False, True])
@pytest.mark.usefixtures("fake", "talosctl")
def test_a_cluster_pulls_through_the_caches_of_its_stack(*, preview: bool) -> None:
    graph = run(
        of_stack("talos"), clusters=of_stack("talos", "clusters"), stack="talos", preview=preview
    )

    cluster = graph.one(LOCAL_CLUSTER, "demo")
    assert cluster.inputs["mirrors"] == graph.outputs["mirrors"]
    assert cluster.inputs["spec"] == {
        "provisioner": "docker",
        "controlplanes": 1,
        "workers": 2,
        "cidr": "10.5.0.0/24",
    }
    assert cluster.inputs["folder"] == str(ROOT / ".state" / "clusters" / "talos")
    assert cluster.depends_on >= set(graph.names(CONTAINER)) - {"anonymous-writer"}
    assert graph.one(IMAGE, "demo-node-image").inputs["name"] == (
        "127.0.0.1:5014/siderolabs/talos:v1.13.0"
    )


@pytest.mark.usefixtures("fake", "talosctl")
def test_the_outputs_describe_each_cluster() -> None:
    clusters = {"one": {"mirrorHost": "10.5.0.1"}, "two": {"cidr": "10.6.0.0/24"}}

    outputs = run({"upstreams": {"docker.io": None}}, clusters=clusters).outputs

    assert outputs.keys() == {"mirrors", "caches", "talosctlFlags", "clusters"}
    folder = ROOT / ".state" / "clusters" / "dev"
    lines = {name: told.pop("guideLine") for name, told in outputs["clusters"].items()}
    assert lines["two"].startswith("talosctl cluster create docker --subnet 10.6.0.0/24 ")
    assert outputs["clusters"] == {
        name: {
            **stack_graph.cluster_made(name),
            "talosconfig": str(folder / name / "talosconfig"),
            "kubeconfig": str(folder / name / "kubeconfig"),
            "mirrors": {"docker.io": f"http://{host}:5000"},
        }
        for name, host in {"one": "10.5.0.1", "two": GATEWAY}.items()
    }


@pytest.mark.usefixtures("fake", "talosctl")
def test_clusters_may_use_the_caches_of_another_stack() -> None:
    others = {
        "mirrors": {"docker.io": f"http://{GATEWAY}:5000"},
        "caches": {"docker.io": {"endpoint": "http://127.0.0.1:5000"}},
    }

    graph = run(
        clusters=of_stack("qemu", "clusters"),
        mirrors_from=of_stack("qemu", "mirrorsFrom"),
        stack="qemu",
        other_stacks={"organization/talos-registry-cache/dev": others},
    )

    assert graph.one(LOCAL_CLUSTER, "machines").inputs["mirrors"] == others["mirrors"]
    assert graph.names(REGISTRY_CACHE) == []
    assert graph.outputs.keys() == {"clusters"}
    with pytest.raises(pulumi.RunError, match="mirrorsFrom: found other, a stack that has no"):
        run(
            clusters={"demo": None},
            mirrors_from="other",
            other_stacks={"organization/talos-registry-cache/other": {}},
        )
    assert run(clusters={"demo": None}).one(LOCAL_CLUSTER, "demo").inputs["mirrors"] == {}


@pytest.mark.usefixtures("talosctl")
def test_mistakes_found_on_this_machine_are_reported_together(fake: FakeEngine) -> None:
    fake.add_network("kind", subnets=["10.6.0.0/16"])
    clusters = {
        "a": {"talosctl": "/not/there"},
        "b": {"controlplanes": 3, "cidr": "10.6.7.0/24"},
    }

    with pytest.raises(pulumi.RunError) as ended:
        run({"upstreams": {"docker.io": None}}, clusters=clusters)

    assert paths_in(ended.value) == {"clusters.a.talosctl", "clusters.b", "clusters.b.cidr"}
    assert ended.value.__suppress_context__


# The engine


@pytest.mark.parametrize(("preview", "stacks"), [(False, ["dev"]), (True, [])])
@pytest.mark.usefixtures("fake")
def test_up_cleans_up_after_killed_commands_and_a_preview_touches_nothing(
    cleaned: list[str], *, preview: bool, stacks: list[str]
) -> None:
    run({"upstreams": {"docker.io": None}}, preview=preview)

    assert cleaned == stacks


def test_the_hooks_find_their_inputs_in_the_declared_resources(
    fake: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    handed_over = []
    monkeypatch.setattr(
        file_owner, "hand_over", lambda _, volume, image, *__: handed_over.append((volume, image))
    )
    graph = run({"upstreams": {"docker.io": {"port": 1024}}, "publishOn": ["192.0.2.1"]})
    hooked = [*graph.all(NETWORK), *graph.all(CONTAINER)]
    for one in hooked:
        fake.add_container(one.inputs["name"], "dev")

    async def create_all() -> None:
        for one in hooked:
            for hook in one.before_create:
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

    # A container with the name of the network is kept.
    assert [container.name for container in fake.containers_here] == ["registry-dev"]
    assert labels.STACK in fake.containers_here[0].labels
    assert handed_over == [("registry-dev-docker.io", image_id("registry:3.1.2"))]


def test_a_registry_image_built_on_the_engine_is_preferred(fake: FakeEngine) -> None:
    built = "talos-registry-cache/registry:3.1.2"
    fake.images_here = {built: {}}

    graph = run({"upstreams": {"docker.io": None, "quay.io": {"image": "registry:3.0.0"}}})

    images = {image.inputs["name"] for image in graph.all(IMAGE)}
    assert images == {"nginx:1.30.6-alpine", "registry:3.0.0", built}
    assert graph.outputs["caches"]["docker.io"]["image"] == built
    assert graph.one(CONTAINER, "docker.io-registry").inputs["image"] == image_id(built)


@pytest.mark.usefixtures("fake")
def test_mistakes_in_the_stack_file_are_reported_together_without_a_traceback() -> None:
    caches = {"upstreams": {"docker.io": {"port": 0}}, "retention": {"unusedFor": "5 days"}}
    clusters = {"Demo": None, "a": {"mirrors": {"quay.io": False}}, "b": {"workers": -1}}

    with pytest.raises(pulumi.RunError) as ended:
        run(caches, clusters=clusters, mirrors_from="other")

    assert paths_in(ended.value) == {
        'caches.upstreams["docker.io"].port',
        "caches.retention.unusedFor",
        "clusters.Demo",
        'clusters.a.mirrors["quay.io"]',
        "clusters.b.cidr",
        "clusters.b.workers",
        "mirrorsFrom",
    }
    assert ended.value.__suppress_context__


def test_an_engine_that_does_not_answer_ends_the_program_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse() -> None:
        raise DockerException("connection refused")

    monkeypatch.setattr(engine, "client", refuse)

    with pytest.raises(pulumi.RunError, match="the container engine does not answer") as ended:
        run({"upstreams": {"docker.io": None}})

    assert ended.value.__suppress_context__


def test_start_up_imports_no_package_that_only_providers_need() -> None:
    program = (
        "import sys, components.image_set, components.registry_cache, components.talos_cluster; "
        "print({'bcrypt', 'botocore', 'cryptography', 'httpx2', 'rich', 'typer', "
        "'talos_registry_cache.registry.manifests'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120
    )

    assert done.stdout == "set()\n"
