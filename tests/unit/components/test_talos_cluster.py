import json
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pulumi
import pytest
from pulumi.output import UNKNOWN, Unknown

from components import mirrors, settings, talos_cluster
from components.engine import EngineFacts, EngineNetwork
from components.local_cluster import PLAN, spec_properties
from components.mirrors import Mirrors
from components.settings import Cluster
from components.talos_cluster import TalosCluster, TalosClusterArgs
from components.trust import Trust
from talos_registry_cache.talos.cluster_spec import ClusterSpec, Provisioner
from tests.unit.components import stack_graph
from tests.unit.components.declared_caches import cache_of, engine_with
from tests.unit.components.stack_graph import (
    CONTAINER,
    IMAGE,
    LOCAL_CLUSTER,
    TAG,
    TALOS_CLUSTER,
    Declared,
    Graph,
    Secret,
)
from tests.unit.talos import programs

GATEWAY = "172.17.0.1"
FOLDER = Path("/stacks/dev")
DIGEST = f"sha256:{'0' * 64}"
MIRRORS = Mirrors(
    mirrors={"docker.io": f"http://{GATEWAY}:5000", "ghcr.io": f"http://{GATEWAY}:5004"},
    endpoints={"docker.io": "http://127.0.0.1:5000", "ghcr.io": "http://127.0.0.1:5004"},
)
DEFAULT_SPEC = {"provisioner": "docker", "controlplanes": 1, "workers": 1, "cidr": "10.5.0.0/24"}
READER = {"username": "adam", "password": "s3cret"}
CLOSED = Mirrors(
    mirrors={"docker.io": f"https://{GATEWAY}:5000"},
    endpoints={"ghcr.io": "https://127.0.0.1:5004"},
    trust=Trust("PEM", READER),
)


@pytest.fixture(autouse=True)
def talosctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The talosctl on PATH, whose version a test may change."""
    path = tmp_path / "talosctl"
    set_version(path, "v1.13.0")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    return path


def set_version(path: Path, tag: str) -> None:
    programs.that_prints(path, programs.VERSION_OUTPUT.format(tag=tag))


def cluster(**written: Any) -> Cluster:
    return settings.parse("dev", {"clusters": {"demo": written}}).clusters["demo"]


def declare(
    written: Mapping[str, Any] | None = None, mirrors: Mirrors = MIRRORS, *, preview: bool = False
) -> Graph:
    """Declare a cluster with these settings, as the program does."""

    def program() -> None:
        args = TalosClusterArgs(cluster(**written or {}), mirrors, FOLDER)
        for key, value in TalosCluster("demo", args).described().items():
            pulumi.export(key, value)

    return stack_graph.run(program, preview=preview)


def local(graph: Graph) -> Declared:
    return graph.one(LOCAL_CLUSTER, "demo")


def pulled(graph: Graph) -> Any:
    return graph.one(IMAGE, "demo-node-image").inputs["name"]


# The graph


@pytest.mark.parametrize("preview", [False, True])
def test_a_cluster_is_declared_with_its_settings_mirrors_and_plan(*, preview: bool) -> None:
    written = {"workers": 2, "timeout": "1m30s", "mergeKubeconfig": True}

    declared = local(declare(written, preview=preview))

    inputs = dict(declared.inputs)
    assert isinstance(inputs.pop("__provider"), str), "not a secret"
    plan = inputs.pop(PLAN)
    assert plan["words"][:5] == ["cluster", "create", "docker", "--workers", "2"]
    assert plan["timeout_s"] == 90
    assert inputs == {
        "name": "demo",
        "folder": "/stacks/dev",
        "spec": {**DEFAULT_SPEC, "workers": 2},
        "mirrors": MIRRORS.mirrors,
        "talosctl": "talosctl",
        "mergeKubeconfig": True,
        "onLostNodes": "keep",
        "wait": "healthy",
    }
    assert declared.delete_before_replace


def test_outputs_of_a_created_cluster() -> None:
    graph = declare()

    parents = {(one.type, one.name): one.parent for one in graph.resources}
    assert parents == {
        (TALOS_CLUSTER, "demo"): "talos-registry-cache-dev",
        (LOCAL_CLUSTER, "demo"): "demo",
        (IMAGE, "demo-node-image"): "demo",
        (TAG, "demo-node-image-tag"): "demo",
    }
    assert graph.one(TAG, "demo-node-image-tag").depends_on == {"demo-node-image"}
    outputs = declare(preview=True).outputs
    unknown = {key for key, value in outputs.items() if isinstance(value, Unknown)}
    assert unknown == {"nodes", "kubernetesEndpoint", "command"}
    assert graph.outputs == {
        **stack_graph.cluster_made("demo"),
        "talosconfig": "/stacks/dev/demo/talosconfig",
        "kubeconfig": "/stacks/dev/demo/kubeconfig",
        "mirrors": MIRRORS.mirrors,
        "guideLine": (
            "talosctl cluster create docker --config-patch @/stacks/dev/demo/mirrors.yaml"
        ),
    }


@pytest.mark.parametrize("preview", [False, True])
def test_a_cluster_depends_on_its_image_and_all_caches(*, preview: bool) -> None:
    parsed = settings.parse("dev", {"caches": {"upstreams": {"docker.io": None, "ghcr.io": None}}})

    def program() -> None:
        offered = mirrors.of_cache(cache_of(parsed))
        TalosCluster("demo", TalosClusterArgs(cluster(), offered, FOLDER))

    with engine_with(EngineFacts(GATEWAY, {})):
        graph = stack_graph.run(program, preview=preview)

    containers = set(graph.names(CONTAINER))
    assert containers >= {"docker.io-container", "ghcr.io-container"}
    assert containers <= graph.one(IMAGE, "demo-node-image").depends_on
    assert local(graph).depends_on >= {*containers, "demo-node-image-tag"}
    assert local(graph).inputs["mirrors"] == MIRRORS.mirrors


# The image of the nodes


@pytest.mark.parametrize("preview", [False, True])
@pytest.mark.parametrize(
    ("written", "image"),
    [
        ({}, "siderolabs/talos:v1.13.0"),
        ({"talosVersion": "v1.12.4"}, "siderolabs/talos:v1.12.4"),
        ({"talosVersion": "1.12.4"}, "siderolabs/talos:v1.12.4"),
        ({"image": "ghcr.io/mine/talos:v1.12.4"}, "mine/talos:v1.12.4"),
    ],
)
def test_the_image_of_the_nodes_is_pulled_through_the_cache_and_tagged(
    written: dict[str, Any], image: str, *, preview: bool
) -> None:
    graph = declare(written, preview=preview)

    assert graph.one(IMAGE, "demo-node-image").inputs == {
        "name": f"127.0.0.1:5004/{image}",
        "keepLocally": True,
    }
    assert graph.one(TAG, "demo-node-image-tag").inputs == {
        "sourceImage": f"127.0.0.1:5004/{image}",
        "targetImage": f"ghcr.io/{image}",
    }


def test_only_docker_nodes_have_an_image_and_only_tags_are_tagged(talosctl: Path) -> None:
    virtual = declare({"provisioner": "qemu"})
    assert [one.type for one in virtual.resources] == [TALOS_CLUSTER, LOCAL_CLUSTER]

    for image in (f"ghcr.io/a/talos@{DIGEST}", f"ghcr.io/a/talos:v1.13.0@{DIGEST}"):
        graph = declare({"image": image})
        assert pulled(graph) == image
        assert graph.names(TAG) == []
        assert local(graph).depends_on == {"demo-node-image"}

    set_version(talosctl, "v0.6.3")
    talos_cluster.find_talosctl.cache_clear()
    assert pulled(declare()) == "127.0.0.1:5000/autonomy/talos:v0.6.3"


@pytest.mark.parametrize("image", ["registry.test/talos:v1.13.0", "talos:v1.13.0"])
def test_images_of_uncached_registries_are_pulled_directly(image: str) -> None:
    graph = declare({"image": image})

    assert pulled(graph) == image
    assert graph.one(TAG, "demo-node-image-tag").inputs["targetImage"] == image


# Mirrors


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ({}, MIRRORS.mirrors),
        ({"mirrors": {"ghcr.io": True}}, MIRRORS.mirrors),
        ({"mirrors": {"ghcr.io": False}}, {"docker.io": f"http://{GATEWAY}:5000"}),
        (
            {"mirrorHost": "10.5.0.1", "mirrors": {"docker.io": False}},
            {"ghcr.io": "http://10.5.0.1:5004"},
        ),
    ],
)
def test_settings_select_the_mirrors_and_their_host(
    written: dict[str, Any], expected: Mapping[str, str]
) -> None:
    graph = declare(written)

    assert local(graph).inputs["mirrors"] == graph.outputs["mirrors"] == expected
    assert pulled(graph).startswith("127.0.0.1:5004/"), "whichever mirrors the nodes use"


@pytest.mark.parametrize(
    ("written", "has_wildcard"),
    [({}, True), ({"docker.io": True}, True), ({"docker.io": False}, False)],
)
def test_a_cluster_that_leaves_out_a_mirror_does_not_get_it_from_the_wildcard_mirror(
    written: dict[str, bool], *, has_wildcard: bool
) -> None:
    urls = {"docker.io": f"http://{GATEWAY}:5000", "*": f"http://{GATEWAY}:5010"}

    used = talos_cluster.used_mirrors(cluster(mirrors=written), urls)

    assert ("*" in used) is has_wildcard


def test_a_mirror_host_keeps_tls_and_without_caches_there_are_no_mirrors() -> None:
    used = talos_cluster.used_mirrors(cluster(mirrorHost="10.5.0.1"), CLOSED.mirrors)  # type: ignore[arg-type]
    assert used == {"docker.io": "https://10.5.0.1:5000"}

    graph = declare(mirrors=Mirrors())
    assert local(graph).inputs["mirrors"] == {}
    assert pulled(graph) == "ghcr.io/siderolabs/talos:v1.13.0"


def test_the_password_of_the_mirrors_is_secret_everywhere() -> None:
    graph = declare(mirrors=CLOSED)

    puller = graph.one("pulumi:providers:docker", "demo-node-image-puller")
    auths = puller.inputs["registryAuth"]
    assert isinstance(auths, Secret)
    assert json.loads(auths.value) == [{"address": "127.0.0.1:5004", **READER}]
    inputs = local(graph).inputs
    assert inputs["reader"] == Secret(READER)
    assert isinstance(inputs[PLAN], Secret)
    assert "password: s3cret" in inputs[PLAN].value["files"]["mirrors.yaml"]
    assert "s3cret" not in str({**inputs, "reader": None, PLAN: None})
    assert graph.outputs["guideLine"].endswith("--config-patch @/stacks/dev/demo/mirrors.yaml")


def test_the_plan_is_unknown_while_the_ca_is() -> None:
    def program() -> None:
        unknown: Any = UNKNOWN
        trust = Trust(pulumi.Output.from_input(unknown))
        TalosCluster("demo", TalosClusterArgs(cluster(), replace(CLOSED, trust=trust), FOLDER))

    inputs = local(stack_graph.run(program, preview=True)).inputs

    assert inputs[PLAN] == inputs["ca"] == stack_graph.UNKNOWN
    assert inputs["mirrors"] == CLOSED.mirrors


def test_a_talosctl_without_support_for_ca_and_password_is_refused(talosctl: Path) -> None:
    set_version(talosctl, "v1.1.0")

    with pytest.raises(pulumi.RunError, match=r"clusters\.demo: .* mirrors with a CA or password"):
        declare(mirrors=CLOSED)


# The specification


def test_every_setting_reaches_the_specification_and_the_state() -> None:
    spec = cluster(
        provisioner="qemu",
        controlplanes=3,
        workers=0,
        cpus=1.5,
        memory="2g",
        cidr="10.6.0.0/24",
        talosVersion="v1.13.0",
        kubernetesVersion="1.34.0",
        image="ghcr.io/mine/talos:v1",
        disks=["virtio:10GiB"],
        skipFallback=True,
        configPatches=["# mine\nmachine: {}\n", {"b": "1", "a": "2"}],
        configPatchesControlplanes=[{"cluster": {}}],
        configPatchesWorkers=["a: 1"],
        extraArguments=["--debug"],
        timeout="2m",
    ).spec("demo")

    default = cluster(cidr="10.5.0.0/24", controlplanes=1, workers=1, provisioner="docker")
    assert default.spec("demo") == cluster().spec("demo") == ClusterSpec(name="demo")
    assert spec_properties(ClusterSpec(name="demo")) == DEFAULT_SPEC
    expected = {
        "provisioner": "qemu",
        "controlplanes": 3,
        "workers": 0,
        "cpus": 1.5,
        "memory_mib": 2048,
        "cidr": "10.6.0.0/24",
        "talos_version": "v1.13.0",
        "kubernetes_version": "1.34.0",
        "image": "ghcr.io/mine/talos:v1",
        "disks": ["virtio:10GiB"],
        "skip_fallback": True,
        "patches": ["# mine\nmachine: {}\n", "b: '1'\na: '2'\n"],
        "patches_controlplanes": ["cluster: {}\n"],
        "patches_workers": ["a: 1"],
        "extra_arguments": ["--debug"],
    }
    assert spec_properties(spec) == expected
    assert expected.keys() == {one.name for one in fields(spec)} - {"name", "mirrors", "timeout_s"}
    assert spec.provisioner is Provisioner.QEMU
    assert spec.timeout_s == 120


# Mistakes


def mistakes(
    written: Mapping[str, Any],
    networks: Mapping[str, list[str]] | None = None,
    folder: Path = FOLDER,
) -> list[str]:
    clusters = settings.parse("dev", {"clusters": written}).clusters
    found = {
        name: EngineNetwork(f"id-of-{name}", subnets) for name, subnets in (networks or {}).items()
    }
    facts = EngineFacts(GATEWAY, {}, found)
    return [str(mistake) for mistake in talos_cluster.mistakes(clusters, facts, folder)]


@pytest.mark.parametrize(
    ("version", "written", "mistake"),
    [
        ("v1.13.0", {"talosctl": "/not/there"}, "clusters.demo.talosctl: there is no program"),
        (
            "v1.11.5",
            {"provisioner": "firecracker"},
            (
                "clusters.demo: talosctl v1.11.5 does not support firecracker; "
                "allowed: talosctl 0.4 to 0.12"
            ),
        ),
        ("v1.8.4", {"skipFallback": True}, "clusters.demo: Talos v1.8.4 does not support skip"),
        ("v1.13.0", {"extraArguments": ["--name=x"]}, "clusters.demo: found the argument --name"),
        ("v1.13.0", {"workers": 300}, "clusters.demo: found 301 nodes; allowed: up to 253"),
    ],
)
def test_clusters_that_talosctl_cannot_create_are_mistakes(
    talosctl: Path, version: str, written: dict[str, Any], mistake: str
) -> None:
    set_version(talosctl, version)

    (line,) = mistakes({"demo": written})

    assert line.startswith(mistake)


@pytest.mark.parametrize("cidr", ["172.18.0.0/16", "172.18.7.0/24", "172.0.0.0/8"])
def test_a_network_that_overlaps_an_engine_network_is_a_mistake(cidr: str) -> None:
    networks = {"bridge": ["10.9.0.0/16"], "kind": ["192.168.7.0/24", "172.18.0.0/16"], "none": []}

    (line,) = mistakes({"demo": {"cidr": cidr}}, networks)

    assert line == (
        f"clusters.demo.cidr: found {cidr}, which overlaps 192.168.7.0/24, 172.18.0.0/16 of the "
        "engine's network kind; allowed: a free network, such as 10.6.0.0/24"
    )


def test_the_cluster_s_own_network_is_no_mistake(tmp_path: Path) -> None:
    # Without the cluster's folder, someone else has created the network.
    (line,) = mistakes({"demo": None}, {"demo": ["10.9.0.0/24"]}, tmp_path)
    assert line.startswith("clusters.demo: found a network of this name that was not created here")

    (tmp_path / "demo").mkdir()
    assert mistakes({"demo": None}, {"bridge": ["172.17.0.0/16"]}) == []
    assert mistakes({"demo": None}, {"demo": ["10.5.0.0/24"]}, tmp_path) == []
    assert len(mistakes({"demo": None}, {"other": ["10.5.0.0/24"]}, tmp_path)) == 1


def test_mistakes_of_all_clusters_are_reported_together() -> None:
    lines = mistakes(
        {
            "a": {"disks": ["virtio:10GiB"]},
            "b": {"talosctl": "/not/there", "cidr": "10.6.0.0/24"},
            "c": {"controlplanes": 3, "cidr": "10.7.0.0/24"},
        },
        {"kind": ["10.5.0.0/16"]},
    )

    assert [line.partition(": ")[0] for line in lines] == [
        "clusters.a",
        "clusters.a.cidr",
        "clusters.b.talosctl",
        "clusters.c",
    ]
