"""Clusters of real nodes with Kubernetes whose creation fails or is interrupted."""

import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from pulumi.automation import CommandError

from tests.integration.support import kubernetes
from tests.integration.support.creation import Creation, volumes_of
from tests.integration.support.kubernetes import Site
from tests.integration.support.polling import PATIENCE, eventually

NAME = "faulty"
CLUSTER: dict[str, Any] = {**kubernetes.CLUSTER, "workers": 0, "cidr": "10.8.0.0/24"}
# A line of talosctl in each phase that is reached only with Kubernetes.
PHASES = {"kubelet": "waiting for kubelet", "Kubernetes": "waiting for all k8s nodes"}
ENDED_WITHIN_S = 60
GIVEN_UP_AFTER = "3m"

pytestmark = pytest.mark.timeout(3 * kubernetes.UP_WITHIN_S)


@pytest.fixture(scope="module")
def creation(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Creation]:
    with kubernetes.warm_stack(site, tmp_path_factory.mktemp("stack")) as made:
        yield Creation(made, site.client, NAME, volumes_of(site.client))


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize(
    "signals", [(signal.SIGINT,), (signal.SIGINT, signal.SIGINT)], ids=["once", "twice"]
)
def test_ctrl_c_undoes_the_creation_in_every_phase(
    creation: Creation, phase: str, signals: Sequence[signal.Signals], tmp_path: Path
) -> None:
    creation.caches.configure({NAME: CLUSTER}, "clusters")

    with creation.up_until(PHASES[phase], tmp_path / "up.log") as up:
        for number in signals:
            os.killpg(up.pid, number)
        assert up.wait(PATIENCE * ENDED_WITHIN_S) != 0

        eventually(lambda: creation.left == [], within_s=ENDED_WITHIN_S, what="nothing is left")


def test_a_node_that_is_short_of_disk_space_is_named(creation: Creation) -> None:
    kubelet = {**kubernetes.KUBELET, "evictionHard": {"nodefs.available": "99%"}}
    patch = {"machine": {"kubelet": {"extraConfig": kubelet}}}
    patches = [*CLUSTER["configPatches"], patch]
    short = {**CLUSTER, "configPatches": patches, "timeout": GIVEN_UP_AFTER}
    creation.caches.configure({NAME: short}, "clusters")

    with pytest.raises(CommandError, match=f"{NAME}-controlplane-1 refuses pods, .* disk space"):
        creation.caches.up()

    assert creation.left == []


def test_up_creates_the_cluster_after_all_that(creation: Creation) -> None:
    creation.caches.configure({NAME: CLUSTER}, "clusters")

    creation.caches.up()

    (node,) = creation.caches.outputs()["clusters"][NAME]["nodes"]
    assert node["status"] == "running"
