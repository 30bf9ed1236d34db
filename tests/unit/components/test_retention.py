"""Retention as a resource: what previews show, and when a cache is stopped."""

import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
from pulumi.runtime import rpc

from components import apart, dynamic_provider, retention_work
from components.retention import RetentionProvider
from talos_registry_cache.engine import pruning
from talos_registry_cache.engine.cache_storage import InVolume
from talos_registry_cache.engine.pruning import Pruned
from talos_registry_cache.engine.volume import VolumeError
from talos_registry_cache.registry.retention import Policy, Pruning, Requests, StoredImage
from tests.unit.components import stack_graph
from tests.unit.components.declared_caches import declare

HUB, QUAY = "docker.io", "quay.io"
NOW, HOUR_S = 1_800_000_000, 3600
PROVIDER = RetentionProvider()
PROPS: dict[str, Any] = {
    "stack": "unit-test",
    "unusedForSeconds": 720 * HOUR_S,
    "maxBytes": 20 * 10**9,
    "kept": ["docker.io/library/alpine:3", "quay.io/team/tool:1"],
    "caches": {
        host: {"name": f"cache-of-{host}", "storage": f"volume-of-{host}", "image": "registry"}
        for host in (HUB, QUAY)
    },
}
UNUSED = StoredImage("team/app", "1", "sha256:0", 0, frozenset())
FOUND = Pruned(Pruning((UNUSED,), {"sha256:0": 2_500_000}, ("folder",)), ())


@dataclass(frozen=True)
class FakePruner:
    """Replaces the pruner of a cache, which needs an engine."""

    engine: None
    process: str
    storage: InVolume
    policy: Policy
    requests: Requests

    unused: ClassVar[list[str]]
    """The volumes with an unused image."""
    missing: ClassVar[list[str]]
    """The volumes that do not exist."""
    made: ClassVar[list["FakePruner"]]
    pruned: ClassVar[list[str]]

    def __post_init__(self) -> None:
        self.made.append(self)

    def plan(self) -> Pruned:
        if self.storage.volume in self.missing:
            raise VolumeError("no such volume")
        return FOUND if self.storage.volume in self.unused else pruning.NONE

    def prune(self) -> Pruned:
        self.pruned.append(self.process)
        return FOUND


@pytest.fixture(autouse=True)
def pruners(monkeypatch: pytest.MonkeyPatch) -> type[FakePruner]:
    FakePruner.unused, FakePruner.missing, FakePruner.made, FakePruner.pruned = [], [], [], []
    monkeypatch.setattr(retention_work, "Pruner", FakePruner)
    monkeypatch.setattr(time, "time", lambda: NOW)
    monkeypatch.setattr(dynamic_provider, "engine", lambda: nullcontext(None))
    monkeypatch.setattr(dynamic_provider, "alone", lambda *_: nullcontext())
    monkeypatch.setattr(apart, "run", lambda work, *arguments: work(*arguments))
    return FakePruner


def checked(**changed: Any) -> Mapping[str, Any]:
    """The inputs of the resource, as Pulumi shows them."""
    return PROVIDER.check({}, {**PROPS, **changed}).inputs


def test_a_preview_shows_the_number_of_images_and_bytes_of_each_cache(
    pruners: type[FakePruner], capsys: pytest.CaptureFixture[str]
) -> None:
    pruners.unused = [f"volume-of-{HUB}"]

    news = checked()

    assert news == {**PROPS, "unwanted": {HUB: {"images": 1, "bytes": 2_500_000}}}
    assert capsys.readouterr().out == "to remove: 1 image, 2.5 MB: docker.io/team/app:1\n"
    assert PROVIDER.diff("retention", PROPS, news).changes
    assert pruners.pruned == []


def test_without_unused_images_nothing_changes_unless_a_limit_does() -> None:
    before = {**PROPS, "unwanted": {}}

    assert not PROVIDER.diff("retention", before, checked(kept=[])).changes
    assert PROVIDER.diff("retention", before, checked(unusedForSeconds=HOUR_S)).changes


def test_declared_images_are_protected_in_the_cache_of_their_registry(
    pruners: type[FakePruner],
) -> None:
    checked()
    checked(maxBytes=None)

    policies = [pruner.policy for pruner in pruners.made]
    assert [list(map(str, policy.protected)) for policy in policies[:2]] == [
        ["docker.io/library/alpine:3"],
        ["quay.io/team/tool:1"],
    ]
    assert {policy.unused_since for policy in policies} == {NOW - 720 * HOUR_S}
    assert [policy.max_size for policy in policies] == [20 * 10**9] * 2 + [None] * 2


def test_up_stops_only_a_cache_with_unused_images(
    pruners: type[FakePruner], capsys: pytest.CaptureFixture[str]
) -> None:
    pruners.unused = [f"volume-of-{QUAY}"]

    made = PROVIDER.create(dict(PROPS)).outs
    updated = PROVIDER.update("retention", PROPS, PROPS).outs

    assert made == updated == {**PROPS, "unwanted": {}}
    assert pruners.pruned == [f"cache-of-{QUAY}"] * 2
    assert capsys.readouterr().out == "removed: 1 image, 2.5 MB: quay.io/team/app:1\n" * 2


def test_a_cache_without_its_volume_has_nothing_to_remove(pruners: type[FakePruner]) -> None:
    pruners.missing = [f"volume-of-{HUB}"]
    pruners.unused = [f"volume-of-{QUAY}"]

    assert checked()["unwanted"].keys() == {QUAY}


def test_nothing_is_read_in_a_simulation_or_before_the_caches_are_known(
    monkeypatch: pytest.MonkeyPatch, pruners: type[FakePruner]
) -> None:
    pruners.unused = [f"volume-of-{HUB}"]
    unknown = rpc.deserialize_property(rpc.UNKNOWN, keep_unknowns=True)

    assert checked(caches={HUB: {**PROPS["caches"][HUB], "name": unknown}})["unwanted"] == {}
    monkeypatch.setenv(dynamic_provider.SIMULATE, "1")
    assert checked()["unwanted"] == {}
    PROVIDER.create(dict(PROPS))
    assert pruners.made == []


def test_only_a_stack_with_a_retention_has_the_resource() -> None:
    caches = {"upstreams": {HUB: None}}

    graph = declare({**caches, "retention": {"unusedFor": "1h30m", "maxSize": "20g"}})

    inputs = graph.one(stack_graph.RETENTION, "retention").inputs
    assert inputs["caches"].keys() == {HUB}
    assert (inputs["unusedForSeconds"], inputs["maxBytes"]) == (5400, 20 * 10**9)
    assert declare(caches).all(stack_graph.RETENTION) == []
