import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pulumi
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pulumi.output import Unknown

from components import mirrors, settings, talos_cluster
from components.engine import EngineFacts, EngineNetwork
from components.local_cluster import spec_arguments
from components.mirrors import Mirrors
from components.settings import Cluster
from components.talos_cluster import TalosCluster, TalosClusterArgs, spec_inputs
from components.trust import Trust
from talos_registry_cache.talos.cluster_spec import ClusterSpec
from tests.unit.components import stack_graph
from tests.unit.components.declared_caches import cache_of, engine_with
from tests.unit.components.stack_graph import (
    CACHING_PROXY,
    CONTAINER,
    IMAGE,
    LOCAL_CLUSTER,
    REGISTRY_CACHE,
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
OFFERED = Mirrors(
    mirrors={"docker.io": f"http://{GATEWAY}:5000", "ghcr.io": f"http://{GATEWAY}:5004"},
    endpoints={"docker.io": "http://127.0.0.1:5000", "ghcr.io": "http://127.0.0.1:5004"},
)


@pytest.fixture(autouse=True)
def talosctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The talosctl on PATH, whose version a test may change."""
    path = tmp_path / "talosctl"
    is_version(path, "v1.13.0")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    return path


def is_version(path: Path, tag: str) -> None:
    programs.that_prints(path, programs.VERSION_OUTPUT.format(tag=tag))


def cluster(**written: Any) -> Cluster:
    return settings.parse("dev", caches=None, clusters={"demo": written}).clusters["demo"]


def declare(
    written: Mapping[str, Any] | None = None, offered: Mirrors = OFFERED, *, preview: bool = False
) -> Graph:
    """A cluster that some settings ask for, as the program declares it."""

    def program() -> None:
        args = TalosClusterArgs(cluster(**written or {}), offered, FOLDER)
        for key, value in TalosCluster("demo", args).described().items():
            pulumi.export(key, value)

    return stack_graph.run(program, preview=preview)


def local(graph: Graph) -> Declared:
    return graph.one(LOCAL_CLUSTER, "demo")


# The graph


@pytest.mark.parametrize("preview", [False, True])
def test_a_cluster_is_made_from_its_settings_and_the_mirrors_on_offer(*, preview: bool) -> None:
    written = {"workers": 2, "timeout": "1m30s", "mergeKubeconfig": True, "talosctl": "talosctl"}

    inputs = dict(local(declare(written, preview=preview)).inputs)

    assert isinstance(inputs.pop("__provider"), str), "it holds no secret"
    assert inputs == {
        "name": "demo",
        "folder": "/stacks/dev",
        "spec": {"provisioner": "docker", "workers": 2},
        "mirrors": OFFERED.mirrors,
        "talosctl": "talosctl",
        "timeoutS": 90,
        "mergeKubeconfig": True,
        "onLostNodes": "keep",
    }


def test_every_resource_hangs_below_the_component_that_made_it() -> None:
    graph = declare()

    parents = {(one.type, one.name): one.parent for one in graph.resources}
    assert parents == {
        (TALOS_CLUSTER, "demo"): "talos-registry-cache-dev",
        (LOCAL_CLUSTER, "demo"): "demo",
        (IMAGE, "demo-node-image"): "demo",
        (TAG, "demo-node-image-tag"): "demo",
    }


def test_a_cluster_makes_way_before_another_takes_its_name() -> None:
    assert local(declare()).delete_before_replace


def test_it_is_told_what_a_cluster_is_once_it_is_made() -> None:
    outputs = declare().outputs

    assert outputs == {
        **stack_graph.cluster_made("demo"),
        "talosconfig": "/stacks/dev/demo/talosconfig",
        "kubeconfig": "/stacks/dev/demo/kubeconfig",
        "mirrors": OFFERED.mirrors,
        "guideLine": (
            "talosctl cluster create docker --config-patch @/stacks/dev/demo/mirrors.yaml"
        ),
    }


def test_a_preview_tells_what_is_known_before_it_is_made() -> None:
    outputs = declare(preview=True).outputs

    unknown = {key for key, value in outputs.items() if isinstance(value, Unknown)}
    assert unknown == {"nodes", "kubernetesEndpoint", "command"}
    assert outputs["mirrors"] == OFFERED.mirrors
    assert outputs["talosconfig"] == "/stacks/dev/demo/talosconfig"


@pytest.mark.parametrize("preview", [False, True])
def test_a_cluster_waits_for_its_image_and_for_all_of_the_caches(*, preview: bool) -> None:
    caches = {"upstreams": {"docker.io": None, "ghcr.io": None}}
    parsed = settings.parse("dev", caches=caches)

    def program() -> None:
        offered = mirrors.of_cache(cache_of(parsed))
        TalosCluster("demo", TalosClusterArgs(cluster(), offered, FOLDER))

    with engine_with(EngineFacts(GATEWAY, {})):
        graph = stack_graph.run(program, preview=preview)

    containers = {"docker.io-container", "ghcr.io-container"}
    assert containers <= set(graph.names(CONTAINER))
    assert graph.names(REGISTRY_CACHE) == ["caches"]
    assert graph.names(CACHING_PROXY) == ["docker.io", "ghcr.io"]
    assert containers <= graph.one(IMAGE, "demo-node-image").depends_on
    assert local(graph).depends_on >= {*containers, "demo-node-image-tag"}
    assert local(graph).inputs["mirrors"] == OFFERED.mirrors


def test_a_cluster_waits_for_its_image_where_there_are_no_caches_to_wait_for() -> None:
    graph = declare()

    assert local(graph).depends_on == {"demo-node-image-tag"}
    assert graph.one(TAG, "demo-node-image-tag").depends_on == {"demo-node-image"}
    assert graph.one(IMAGE, "demo-node-image").depends_on == set()


def test_two_clusters_do_not_wait_for_each_other() -> None:
    def program() -> None:
        for name in ("one", "two"):
            TalosCluster(name, TalosClusterArgs(cluster(), OFFERED, FOLDER))

    graph = stack_graph.run(program)

    assert graph.one(LOCAL_CLUSTER, "one").depends_on == {"one-node-image-tag"}
    assert graph.one(LOCAL_CLUSTER, "two").depends_on == {"two-node-image-tag"}


# The image of the nodes


@pytest.mark.parametrize("preview", [False, True])
def test_the_image_of_the_nodes_is_pulled_through_the_cache_and_gets_its_own_name(
    *, preview: bool
) -> None:
    graph = declare(preview=preview)

    image = graph.one(IMAGE, "demo-node-image").inputs
    tag = graph.one(TAG, "demo-node-image-tag").inputs
    assert image == {"name": "127.0.0.1:5004/siderolabs/talos:v1.13.0", "keepLocally": True}
    assert tag == {
        "sourceImage": "127.0.0.1:5004/siderolabs/talos:v1.13.0",
        "targetImage": "ghcr.io/siderolabs/talos:v1.13.0",
    }


@pytest.mark.parametrize(
    ("written", "pulled"),
    [
        ({}, "siderolabs/talos:v1.13.0"),
        ({"talosVersion": "v1.12.4"}, "siderolabs/talos:v1.12.4"),
        ({"talosVersion": "1.12.4"}, "siderolabs/talos:v1.12.4"),
        ({"image": "ghcr.io/mine/talos:v1.12.4"}, "mine/talos:v1.12.4"),
    ],
)
def test_the_image_is_the_one_that_talosctl_would_pull(
    written: dict[str, Any], pulled: str
) -> None:
    graph = declare(written)

    assert graph.one(IMAGE, "demo-node-image").inputs["name"] == f"127.0.0.1:5004/{pulled}"
    assert graph.one(TAG, "demo-node-image-tag").inputs["targetImage"] == f"ghcr.io/{pulled}"


def test_an_older_talosctl_has_its_image_elsewhere(talosctl: Path) -> None:
    is_version(talosctl, "v0.6.3")

    graph = declare()

    name = graph.one(IMAGE, "demo-node-image").inputs["name"]
    assert name == "127.0.0.1:5000/autonomy/talos:v0.6.3"


@pytest.mark.parametrize("image", ["registry.test/talos:v1.13.0", "talos:v1.13.0"])
def test_an_image_of_a_registry_without_a_cache_is_pulled_from_there(image: str) -> None:
    graph = declare({"image": image})

    assert graph.one(IMAGE, "demo-node-image").inputs["name"] == image
    assert graph.one(TAG, "demo-node-image-tag").inputs["targetImage"] == image


@pytest.mark.parametrize("tag", ["", ":v1.13.0"])
def test_an_image_with_a_digest_keeps_its_name_since_no_engine_gives_such_a_name(tag: str) -> None:
    image = f"ghcr.io/siderolabs/talos{tag}@{DIGEST}"

    graph = declare({"image": image})

    assert graph.one(IMAGE, "demo-node-image").inputs["name"] == image
    assert graph.names(TAG) == []
    assert local(graph).depends_on == {"demo-node-image"}


def test_virtual_machines_run_no_image() -> None:
    graph = declare({"provisioner": "qemu"})

    assert [one.type for one in graph.resources] == [TALOS_CLUSTER, LOCAL_CLUSTER]
    assert local(graph).inputs["spec"] == {"provisioner": "qemu"}


# Mirrors


def used(**written: Any) -> Any:
    return local(declare(written)).inputs["mirrors"]


def test_all_mirrors_on_offer_are_used() -> None:
    assert used() == OFFERED.mirrors
    assert used(mirrors={"ghcr.io": True}) == OFFERED.mirrors


def test_a_mirror_can_be_left_out_and_the_image_still_comes_through_its_cache() -> None:
    graph = declare({"mirrors": {"ghcr.io": False}})

    assert local(graph).inputs["mirrors"] == {"docker.io": f"http://{GATEWAY}:5000"}
    assert graph.outputs["mirrors"] == {"docker.io": f"http://{GATEWAY}:5000"}
    assert graph.one(IMAGE, "demo-node-image").inputs["name"].startswith("127.0.0.1:5004/")


def test_nodes_may_reach_the_caches_at_another_address() -> None:
    assert used(mirrorHost="10.5.0.1", mirrors={"docker.io": False}) == {
        "ghcr.io": "http://10.5.0.1:5004"
    }


def test_another_address_of_a_mirror_keeps_its_tls() -> None:
    settings = cluster(mirrorHost="10.5.0.1")
    offered = {"docker.io": "https://172.17.0.1:5000"}

    assert talos_cluster.used_mirrors(settings, offered) == {"docker.io": "https://10.5.0.1:5000"}


def test_the_password_of_mirrors_is_a_secret_and_the_line_that_a_person_types_is_none() -> None:
    reader = {"username": "adam", "password": "s3cret"}
    offered = Mirrors(
        mirrors={"docker.io": "https://172.17.0.1:5000"},
        endpoints={"ghcr.io": "https://127.0.0.1:5004"},
        trust=Trust("PEM", reader),
    )

    def program() -> None:
        made = TalosCluster("demo", TalosClusterArgs(cluster(), offered, FOLDER))
        pulumi.export("line", made.guide_line)
        pulumi.export("isSecret", pulumi.Output.from_input(made.guide_line.is_secret()))

    graph = stack_graph.run(program)

    puller = graph.one("pulumi:providers:docker", "demo-node-image-puller")
    auths = puller.inputs["registryAuth"]
    assert isinstance(auths, Secret)
    assert json.loads(auths.value) == [{"address": "127.0.0.1:5004", **reader}]
    assert local(graph).inputs["reader"] == Secret(reader)
    assert local(graph).inputs["ca"] == "PEM"
    assert graph.outputs["isSecret"] is False
    assert "--config-patch @/stacks/dev/demo/mirrors.yaml" in graph.outputs["line"]


def test_where_nothing_is_on_offer_there_are_no_mirrors() -> None:
    graph = declare(offered=Mirrors())

    assert local(graph).inputs["mirrors"] == {}
    name = graph.one(IMAGE, "demo-node-image").inputs["name"]
    assert name == "ghcr.io/siderolabs/talos:v1.13.0"


# What is wanted of a cluster


def test_what_is_not_set_is_not_in_the_state() -> None:
    assert spec_inputs(cluster()) == {"provisioner": "docker"}


def test_no_workers_is_something_that_is_wanted() -> None:
    assert spec_inputs(cluster(workers=0)) == {"provisioner": "docker", "workers": 0}


def test_the_default_network_is_wanted_only_if_it_is_written() -> None:
    assert "cidr" not in spec_inputs(cluster())
    assert spec_inputs(cluster(cidr="10.5.0.0/24"))["cidr"] == "10.5.0.0/24"


def test_everything_that_is_set_is_wanted() -> None:
    written = cluster(
        provisioner="qemu",
        controlplanes=3,
        workers=2,
        cpus=1.5,
        memory="2g",
        cidr="10.6.0.0/24",
        talosVersion="v1.13.0",
        kubernetesVersion="1.34.0",
        image="ghcr.io/mine/talos:v1",
        disks=["virtio:10GiB"],
        skipFallback=True,
        configPatches=["machine: {}"],
        configPatchesControlplanes=[{"cluster": {}}],
        configPatchesWorkers=["a: 1"],
        extraArguments=["--debug"],
    )

    assert spec_inputs(written) == {
        "provisioner": "qemu",
        "controlplanes": 3,
        "workers": 2,
        "cpus": 1.5,
        "memory_mib": 2048,
        "cidr": "10.6.0.0/24",
        "talos_version": "v1.13.0",
        "kubernetes_version": "1.34.0",
        "image": "ghcr.io/mine/talos:v1",
        "disks": ["virtio:10GiB"],
        "skip_fallback": True,
        "patches": ["machine: {}"],
        "patches_controlplanes": ["cluster: {}\n"],
        "patches_workers": ["a: 1"],
        "extra_arguments": ["--debug"],
    }
    assert ClusterSpec(name="demo", **spec_arguments(spec_inputs(written))).memory_mib == 2048


def test_a_patch_keeps_its_order_and_a_text_is_left_as_it_is() -> None:
    mapping = {"machine": {"sysctls": {"b": "1", "a": "2"}}}

    patches = spec_inputs(cluster(configPatches=[mapping, "# mine\nmachine: {}\n"]))["patches"]

    assert patches == [
        "machine:\n  sysctls:\n    b: '1'\n    a: '2'\n",
        "# mine\nmachine: {}\n",
    ]


PATCHES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=5), PATCHES, max_size=3))
def test_a_patch_means_the_same_as_a_text(patch: dict[str, Any]) -> None:
    (text,) = spec_inputs(cluster(configPatches=[patch]))["patches"]

    assert yaml.safe_load(text) == patch


# Mistakes


def mistakes(
    written: Mapping[str, Any],
    networks: Mapping[str, list[str]] | None = None,
    folder: Path = FOLDER,
) -> list[str]:
    clusters = settings.parse("dev", caches=None, clusters=written).clusters
    found = {
        name: EngineNetwork(f"id-of-{name}", subnets) for name, subnets in (networks or {}).items()
    }
    facts = EngineFacts(GATEWAY, {}, found)
    return [str(mistake) for mistake in talos_cluster.mistakes(clusters, facts, folder)]


def test_there_are_none_in_what_this_machine_can_do() -> None:
    assert mistakes({"demo": None}, {"bridge": ["172.17.0.0/16"]}) == []


def test_there_is_no_such_talosctl() -> None:
    (line,) = mistakes({"demo": {"talosctl": "/not/there", "cidr": "10.5.0.0/24"}})

    assert line.startswith("clusters.demo.talosctl: there is no program /not/there; install")


def test_a_talosctl_that_cannot_do_what_is_wanted(talosctl: Path) -> None:
    is_version(talosctl, "v1.11.5")

    (line,) = mistakes({"demo": {"provisioner": "firecracker"}})

    assert line == (
        "clusters.demo: cluster demo: talosctl v1.11.5 has no firecracker; "
        "versions that do: 0.4 to 0.12"
    )


def test_a_talosctl_that_knows_no_fallback_to_skip_whatever_the_mirrors_will_be(
    talosctl: Path,
) -> None:
    is_version(talosctl, "v1.8.4")

    (line,) = mistakes({"demo": {"skipFallback": True}})

    assert line == (
        "clusters.demo: cluster demo: Talos v1.8.4 has no skip_fallback; "
        "versions that do: 1.9 or later"
    )


def test_what_no_talosctl_could_make_sense_of() -> None:
    (line,) = mistakes({"demo": {"extraArguments": ["--name=other"]}})

    assert line == (
        "clusters.demo: cluster demo: found the argument --name, which is set for you; "
        "allowed: any other"
    )


def test_a_network_with_too_little_room() -> None:
    (line,) = mistakes({"demo": {"cidr": "10.6.0.0/29", "workers": 5}})

    assert "found cidr 10.6.0.0/29, which has room for 5 nodes, and 6 are wanted" in line


def test_the_network_that_talosctl_takes_by_itself_has_its_room_too() -> None:
    (line,) = mistakes({"demo": {"workers": 300}})

    assert "found cidr 10.5.0.0/24, which has room for 253 nodes, and 301 are wanted" in line


@pytest.mark.parametrize("cidr", ["172.18.0.0/16", "172.18.7.0/24", "172.0.0.0/8"])
def test_a_network_that_overlaps_one_of_the_engine(cidr: str) -> None:
    networks = {"bridge": ["10.9.0.0/16"], "kind": ["192.168.7.0/24", "172.18.0.0/16"], "none": []}

    (line,) = mistakes({"demo": {"cidr": cidr}}, networks)

    assert line == (
        f"clusters.demo.cidr: found {cidr}, which overlaps 192.168.7.0/24, 172.18.0.0/16 of the "
        "engine's network kind; allowed: a free one, such as 10.6.0.0/24"
    )


def test_the_network_of_the_cluster_itself_is_no_mistake(tmp_path: Path) -> None:
    (tmp_path / "demo").mkdir()

    assert mistakes({"demo": None}, {"demo": ["10.5.0.0/24"]}, tmp_path) == []
    assert len(mistakes({"demo": None}, {"other": ["10.5.0.0/24"]}, tmp_path)) == 1


def test_a_network_of_its_name_that_is_not_from_here(tmp_path: Path) -> None:
    (line,) = mistakes({"demo": None}, {"demo": ["10.9.0.0/24"]}, tmp_path)

    assert line.startswith("clusters.demo: a network of this name is on the engine, and not from")


def test_all_mistakes_of_all_clusters_are_told() -> None:
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
