"""A simulated cluster or image set is in the state, and nothing was run or pulled for it."""

from pathlib import Path
from typing import Any

import pytest

from components import dynamic_provider, image_set, local_cluster, talos_cluster
from components.cached_images import CachedImagesProvider
from components.engine import EngineFacts, EngineNetwork
from components.local_cluster import LocalClusterProvider
from components.settings import Caches, Cluster
from components.settings.images import Images
from talos_registry_cache.talos.errors import TalosError

NO_TALOSCTL = "/no/such/talosctl"
TAKEN = EngineFacts("172.17.0.1", {}, {"demo": EngineNetwork("1", ["10.5.0.0/24"])})


@pytest.fixture(autouse=True)
def nothing_known_of_talosctl() -> None:
    """A program asks once, and is simulated or not; the tests are both."""
    local_cluster.find_talosctl.cache_clear()


@pytest.fixture
def simulated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(dynamic_provider.SIMULATE, "1")


def _cluster(folder: Path) -> dict[str, Any]:
    return {
        "name": "demo",
        "folder": str(folder),
        "spec": {"provisioner": "docker"},
        "mirrors": {},
        "talosctl": NO_TALOSCTL,
        "timeoutS": 1.0,
        "mergeKubeconfig": True,
    }


@pytest.mark.usefixtures("simulated")
def test_cluster_is_made_without_talosctl_engine_or_files(tmp_path: Path) -> None:
    props = _cluster(tmp_path)
    assert LocalClusterProvider().check({}, props).failures == []
    made = LocalClusterProvider().create(props)
    assert made.id == "demo"
    assert made.outs is not None
    assert (made.outs["nodes"], made.outs["command"]) == ([], "")
    assert LocalClusterProvider().diff("demo", made.outs, props).changes is False
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("simulated")
def test_images_are_there_without_a_cache() -> None:
    props = {"images": {"docker.io/library/x:1": "linux/amd64"}, "caches": {}}
    made = CachedImagesProvider().create(props).outs
    assert made is not None
    assert made["missing"] == {}
    assert made == CachedImagesProvider().update("images", made, props).outs


@pytest.mark.usefixtures("simulated")
def test_settings_are_not_refused_for_what_the_engine_or_the_machine_has(tmp_path: Path) -> None:
    clusters = {"demo": Cluster(talosctl=NO_TALOSCTL)}
    assert list(talos_cluster.mistakes(clusters, TAKEN, tmp_path)) == []
    caches = Caches.model_validate({"upstreams": {"docker.io": None}})
    images = Images.model_validate({"talos": {"talosctl": NO_TALOSCTL}})
    assert image_set.resolve(images, caches, tmp_path) == image_set.Resolved({}, [])


def test_without_the_variable_talosctl_has_to_be_there(tmp_path: Path) -> None:
    with pytest.raises(TalosError, match="there is no program"):
        local_cluster.find_talosctl(NO_TALOSCTL)
    clusters = {"demo": Cluster(talosctl=NO_TALOSCTL)}
    (mistake,) = talos_cluster.mistakes(clusters, TAKEN, tmp_path)
    assert "there is no program" in str(mistake)
