"""Totals of pulls, by image and client."""

from datetime import UTC, datetime
from typing import Any

from talos_registry_cache.cli.pull_log import Pull
from talos_registry_cache.cli.pulls import Pulls

PULL: dict[str, Any] = {
    "time": datetime(2026, 11, 27, tzinfo=UTC),
    "client": "10.5.0.2",
    "method": "GET",
    "repository": "pause",
    "status": 200,
    "seconds": 0.1,
    "agent": "containerd",
}


def pulled(kind: str, target: str, result: str, size: int = 10, **more: Any) -> Pull:
    return Pull(**{**PULL, **more}, kind=kind, target=target, result=result, size=size)


def test_a_blob_counts_for_the_tag_that_its_client_asked_for_last() -> None:
    pulls = Pulls()
    for one in (
        pulled("manifests", "1", "miss"),
        pulled("manifests", "2", "hit", client="10.5.0.3"),
        pulled("manifests", "sha256:ab", "hit"),
        pulled("blobs", "sha256:cd", "shared", 1000),
        pulled("blobs", "sha256:cd", "hit", 1000, client="10.5.0.4"),
    ):
        pulls.add("registry.k8s.io", one)

    assert {key: total.size for key, total in pulls.by_image.items()} == {
        ("registry.k8s.io/pause:1", "10.5.0.2"): 1020,
        ("registry.k8s.io/pause:2", "10.5.0.3"): 10,
        ("registry.k8s.io/pause", "10.5.0.4"): 1000,
    }
    assert pulls.total.size == 2030
    assert pulls.total.cached == 4


def test_errors_are_neither_hits_nor_misses() -> None:
    pulls = Pulls()

    pulls.add("registry.k8s.io", pulled("manifests", "1", "miss", status=404))

    assert dict(pulls.total.results) == {"failed": 1}
