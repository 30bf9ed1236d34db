"""Clusters of real Talos nodes that `up` does not wait for until they are healthy."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.support import kubernetes, nodes, processes
from tests.integration.support.kubernetes import CLUSTER, Site
from tests.integration.support.stack import CacheStack
from tests.integration.support.talos_node import TALOSCTL

NAME = "early"
ANSWERS_WITHIN_S = 60
HEALTHY_WITHIN_S = 300
ALL_HEALTHY = "waiting for all k8s nodes to report schedulable: OK"

pytestmark = pytest.mark.timeout(3 * kubernetes.UP_WITHIN_S)


@pytest.fixture(scope="module")
def stack(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CacheStack]:
    with kubernetes.warm_stack(site, tmp_path_factory.mktemp("stack")) as made:
        yield made


@pytest.fixture
def _no_cluster_left(site: Site, stack: CacheStack) -> Iterator[None]:
    yield
    stack.configure({}, "clusters")
    stack.up()
    assert nodes.left_of(site.client, NAME) == []


def create(stack: CacheStack, **settings: Any) -> str:
    """Create the cluster, or update it; returns the output of `up`."""
    stack.configure({NAME: {**CLUSTER, **settings}}, "clusters")
    return stack.pulumi("up", "--yes", "--skip-preview")


def kubectl(site: Site, stack: CacheStack, *arguments: str) -> str:
    return kubernetes.kubectl(site, stack.clusters_folder / NAME / "kubeconfig", *arguments)


def ready_nodes(site: Site, stack: CacheStack) -> int:
    """The number of Kubernetes nodes that are ready."""
    listed = kubectl(site, stack, "get", "nodes", "--no-headers").splitlines()
    return [line.split()[1] for line in listed].count("Ready")


def wait_until_healthy(site: Site, stack: CacheStack) -> None:
    told = stack.outputs()["clusters"][NAME]
    control_plane, worker = (
        node["address"] for node in sorted(told["nodes"], key=lambda one: str(one["role"]))
    )
    ended = processes.finish(
        [
            *site.engine.enter, TALOSCTL, "health", "--wait-timeout", f"{HEALTHY_WITHIN_S}s",
            "--talosconfig", told["talosconfig"], "--nodes", control_plane,
            "--control-plane-nodes", control_plane, "--worker-nodes", worker,
        ],
        within_s=HEALTHY_WITHIN_S + ANSWERS_WITHIN_S,
    )  # fmt: skip
    printed = ended.stdout + ended.stderr
    assert ended.returncode == 0, printed
    assert ALL_HEALTHY in printed
    assert ready_nodes(site, stack) == 2


@pytest.mark.usefixtures("_no_cluster_left")
def test_up_returns_when_the_api_answers_and_the_cluster_becomes_healthy_by_itself(
    site: Site, stack: CacheStack
) -> None:
    printed = create(stack, wait="api")

    assert ready_nodes(site, stack) < 2
    kubectl(site, stack, "create", "namespace", "at-once")
    assert re.search(rf"{NAME}: the Kubernetes API answers after \d+\.\d s", printed), printed
    wait_until_healthy(site, stack)


@pytest.mark.usefixtures("_no_cluster_left")
def test_up_returns_when_the_cluster_is_bootstrapped_and_it_becomes_healthy_by_itself(
    site: Site, stack: CacheStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    merged = tmp_path / "config"
    monkeypatch.setenv("KUBECONFIG", str(merged))

    printed = create(stack, wait="none", mergeKubeconfig=True)

    assert re.search(rf"{NAME}: bootstrapped after \d+\.\d s", printed), printed
    assert f"{NAME}: etcd" not in printed
    assert f"admin@{NAME}" in merged.read_text()
    wait_until_healthy(site, stack)
    before = nodes.kept(site.client, NAME)
    create(stack, wait="healthy")
    assert nodes.kept(site.client, NAME) == before, "updated in place"
    assert f"admin@{NAME}" not in merged.read_text()
