"""`up` of a cluster of real Talos nodes that does not wait until the cluster is healthy.

The images are in the caches before.
"""

import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.integration.support import kubernetes, nodes, private_engine, processes
from tests.integration.support.kubernetes import CLUSTER, Site
from tests.integration.support.polling import eventually
from tests.integration.support.stack import CacheStack
from tests.integration.support.talos_node import TALOSCTL
from toolchain import kubernetes_images

NAME = "early"
ANSWERS_WITHIN_S = 60
HEALTHY_WITHIN_S = 300
ALL_HEALTHY = "waiting for all k8s nodes to report schedulable: OK"

pytestmark = pytest.mark.timeout(3 * kubernetes.UP_WITHIN_S)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    if reason := private_engine.why_impossible():
        pytest.skip(reason)
    with kubernetes.site(tmp_path_factory.mktemp("engine")) as made:
        yield made


@pytest.fixture(scope="module")
def stack(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CacheStack]:
    with kubernetes.stack(site, tmp_path_factory.mktemp("stack")) as made:
        made.configure({"references": list(kubernetes_images.names())}, "images")
        made.up()
        yield made


Create = Callable[[str], str]


@pytest.fixture
def create(site: Site, stack: CacheStack) -> Iterator[Create]:
    """Creates the cluster with this value of `wait`; returns the output of `up`."""

    def up(wait: str) -> str:
        stack.configure({NAME: {**CLUSTER, "wait": wait}}, "clusters")
        return stack.pulumi("up", "--yes", "--skip-preview")

    yield up
    stack.configure({}, "clusters")
    stack.up()
    assert nodes.left_of(site.client, NAME) == []


def output(stack: CacheStack, name: str) -> Any:
    return stack.outputs()["clusters"][NAME][name]


def kubectl(site: Site, stack: CacheStack, *arguments: str) -> str:
    config = ("--kubeconfig", output(stack, "kubeconfig"))
    return processes.run(
        *site.engine.enter, "kubectl", *config, *arguments, within_s=ANSWERS_WITHIN_S
    )


def ready_nodes(site: Site, stack: CacheStack) -> int:
    """The number of Kubernetes nodes that are ready."""
    listed = kubectl(site, stack, "get", "nodes", "--no-headers").splitlines()
    return [line.split()[1] for line in listed].count("Ready")


def is_healthy(site: Site, stack: CacheStack) -> bool:
    """Whether `talosctl health` passes all checks within a minute."""
    control_plane, worker = (
        node["address"] for node in sorted(output(stack, "nodes"), key=lambda one: one["role"])
    )
    ended = processes.finish(
        [
            *site.engine.enter, TALOSCTL, "health", "--wait-timeout", f"{ANSWERS_WITHIN_S}s",
            "--talosconfig", output(stack, "talosconfig"), "--nodes", control_plane,
            "--control-plane-nodes", control_plane, "--worker-nodes", worker,
        ],
        within_s=2 * ANSWERS_WITHIN_S,
    )  # fmt: skip
    return ended.returncode == 0 and ALL_HEALTHY in ended.stdout + ended.stderr


def test_up_returns_when_the_api_answers_and_the_cluster_becomes_healthy_by_itself(
    create: Create, site: Site, stack: CacheStack
) -> None:
    printed = create("api")

    assert ready_nodes(site, stack) < 2
    kubectl(site, stack, "create", "namespace", "at-once")
    assert re.search(rf"{NAME}: the Kubernetes API answers after \d+\.\d s", printed), printed
    healthy = partial(is_healthy, site, stack)
    eventually(healthy, within_s=HEALTHY_WITHIN_S, what="the cluster is healthy")
    assert ready_nodes(site, stack) == 2


def test_up_returns_when_the_nodes_are_bootstrapped_and_the_cluster_becomes_healthy_by_itself(
    create: Create, site: Site, stack: CacheStack
) -> None:
    printed = create("none")

    with pytest.raises(processes.CommandFailedError):
        kubectl(site, stack, "get", "nodes")
    assert re.search(rf"{NAME}: bootstrapped after \d+\.\d s", printed), printed
    healthy = partial(is_healthy, site, stack)
    eventually(healthy, within_s=HEALTHY_WITHIN_S, what="the cluster is healthy")
    assert ready_nodes(site, stack) == 2


def test_a_kubeconfig_that_nobody_waited_for_is_merged_and_removed_again(
    create: Create, stack: CacheStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    merged = tmp_path / "config"
    monkeypatch.setenv("KUBECONFIG", str(merged))
    stack.configure({NAME: {**CLUSTER, "wait": "none", "mergeKubeconfig": True}}, "clusters")
    stack.up()
    assert f"admin@{NAME}" in merged.read_text()

    assert set(stack.up()) == {"same"}
    create("healthy")

    assert f"admin@{NAME}" not in merged.read_text()
