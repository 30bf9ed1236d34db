"""Simulated clusters and image sets exist in the state only."""

from pathlib import Path

import pytest

from components import dynamic_provider, image_set, talos_cluster
from components.cached_images import CachedImagesProvider
from components.engine import EngineFacts, EngineNetwork
from components.local_cluster import PLAN, LocalClusterProvider
from components.mirrors import Mirrors
from components.settings import Caches, Cluster
from components.settings.images import Images
from components.talos_cluster import TalosCluster, TalosClusterArgs
from tests.unit.components import stack_graph

NO_TALOSCTL = "/no/such/talosctl"
SETTINGS = Cluster(talosctl=NO_TALOSCTL)
TAKEN = EngineFacts("172.17.0.1", {}, {"demo": EngineNetwork("1", ["10.5.0.0/24"])})


@pytest.fixture
def _simulated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(dynamic_provider.SIMULATE, "1")


@pytest.mark.usefixtures("_simulated")
def test_a_cluster_is_created_without_talosctl_engine_or_files(tmp_path: Path) -> None:
    args = TalosClusterArgs(SETTINGS, Mirrors(), tmp_path)
    graph = stack_graph.run(lambda: TalosCluster("demo", args))
    props = graph.one(stack_graph.LOCAL_CLUSTER, "demo").inputs
    assert PLAN not in props

    created = LocalClusterProvider().create(props)

    assert created.id == "demo"
    assert created.outs is not None
    assert (created.outs["nodes"], created.outs["command"]) == ([], "")
    assert LocalClusterProvider().diff("demo", created.outs, props).changes is False
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("_simulated")
def test_images_count_as_cached_without_a_cache() -> None:
    props = {"images": {"docker.io/library/x:1": "linux/amd64"}, "caches": {}}
    created = CachedImagesProvider().create(props).outs
    assert created is not None
    assert created["missing"] == {}
    assert created == CachedImagesProvider().update("images", created, props).outs


@pytest.mark.usefixtures("_simulated")
def test_the_engine_and_the_machine_are_not_checked(tmp_path: Path) -> None:
    assert list(talos_cluster.mistakes({"demo": SETTINGS}, TAKEN, tmp_path)) == []
    caches = Caches.model_validate({"upstreams": {"docker.io": None}})
    images = Images.model_validate({"talos": {"talosctl": NO_TALOSCTL}})
    resolved = image_set.resolve(images, caches, tmp_path)
    assert (resolved.images, resolved.mistakes) == ([], [])


def test_without_simulation_talosctl_is_needed(tmp_path: Path) -> None:
    paths = [one.path for one in talos_cluster.mistakes({"demo": SETTINGS}, TAKEN, tmp_path)]

    assert paths == [("clusters", "demo", "talosctl"), ("clusters", "demo")]
