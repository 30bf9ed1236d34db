"""Pruning a cache: when it is stopped, how often it is read, and what is removed."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from docker.models.containers import Container
from docker.models.services import Service

from talos_registry_cache.engine import labels, processes, pruning
from talos_registry_cache.engine.pruning import Pruner
from talos_registry_cache.registry import layout, reference
from talos_registry_cache.registry.layout import Blob, Kind, Link, Storage, Upload
from talos_registry_cache.registry.retention import NO_REQUESTS, Policy

MANIFEST, LOOSE = (f"sha256:{letter * 64}" for letter in "ab")
UPLOAD = Upload("an upload", 5, modified=0)


def link(kind: Kind, tag: str = "") -> Link:
    folder = layout.link_file(kind, "team/app", MANIFEST, tag).removesuffix("/link")
    named = None if kind is Kind.TAG else MANIFEST
    return Link(kind, "team/app", tag, named, MANIFEST, folder.removesuffix("/current"), modified=7)


IMAGE = Storage(
    {MANIFEST: Blob(3, MANIFEST)}, (link(Kind.REVISION), link(Kind.TAG, "1")), (UPLOAD,)
)
BLOB = layout.blob_folder(MANIFEST)


@dataclass
class Recording:
    """A storage and the process on it, which record what happens to them."""

    readings: list[Storage]
    happened: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)

    def read(self, _on_piece: Any, *, trusting: bool) -> Storage:
        assert trusting, "all blobs would be read"
        self.happened.append("read")
        return self.readings.pop(0)

    def remove(self, folders: Sequence[str]) -> None:
        self.happened.append("remove")
        self.removed += folders

    def remove_uploads(self, uploads: Iterable[Upload]) -> None:
        assert list(uploads) == [UPLOAD]
        self.happened.append("remove uploads")

    @contextmanager
    def forgetting(self, _engine: object, name: str) -> Iterator[None]:
        assert name == "cache"
        self.happened.append("stop")
        yield
        self.happened.append("start")


def pruner(
    monkeypatch: pytest.MonkeyPatch,
    *readings: Storage,
    policy: Policy | None,
    kind: type[Container | Service] = Container,
) -> tuple[Pruner, Recording]:
    recording = Recording(list(readings))
    monkeypatch.setattr(processes, "find", lambda *_: kind())
    monkeypatch.setattr(processes, "forgetting", recording.forgetting)
    engine: Any = None
    storage: Any = recording
    return Pruner(engine, "cache", storage, policy), recording


def keeping(*kept: str, **limits: Any) -> Policy:
    protected: Collection[Any] = [reference.parse(f"docker.io/{text}") for text in kept]
    return Policy(protected, **limits)


def test_a_plan_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    prunes, recording = pruner(monkeypatch, IMAGE, policy=keeping(unused_since=8))

    planned = prunes.plan()

    assert ([str(image) for image in planned.pruning.images]) == ["team/app:1"]
    assert (planned.pruning.freed, planned.uploads) == (3, (UPLOAD,))
    assert recording.happened == ["read"]


def test_a_container_is_stopped_before_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    prunes, recording = pruner(monkeypatch, IMAGE, policy=keeping(unused_since=8))

    pruned = prunes.prune()

    assert pruned.pruning.freed == 3
    assert recording.happened == ["stop", "read", "remove", "remove uploads", "start"]
    assert recording.removed[-1] == BLOB


def test_a_service_is_read_twice_and_restarts_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    written = Storage({**IMAGE.blobs, LOOSE: Blob(9, LOOSE)}, IMAGE.links)
    prunes, recording = pruner(
        monkeypatch, IMAGE, written, policy=keeping(unused_since=8), kind=Service
    )

    pruned = prunes.prune()

    assert set(pruned.pruning.blobs) == {MANIFEST}
    assert recording.happened == ["read", "read", "stop", "remove", "remove uploads", "start"]
    assert layout.blob_folder(LOOSE) not in recording.removed


@pytest.mark.parametrize("policy", [None, keeping("team/app:1"), keeping(unused_since=7)])
def test_without_unwanted_images_only_old_uploads_are_removed(
    monkeypatch: pytest.MonkeyPatch, policy: Policy | None
) -> None:
    prunes, recording = pruner(monkeypatch, IMAGE, policy=policy, kind=Service)

    pruned = prunes.prune()

    assert pruned.pruning == pruning.NONE.pruning
    assert recording.happened == ["read", "remove uploads"]


@pytest.mark.parametrize("has_front", [True, False])
def test_the_log_of_a_front_has_the_last_requests(*, has_front: bool) -> None:
    line = (
        b'10.5.0.2 - - [27/Nov/2026:18:30:00 +0000] "GET /v2/team/app/manifests/1 HTTP/1.1" '
        b'200 5 "-" "containerd" 0.012 stale\n'
    )

    def logs(**arguments: bool) -> Iterator[bytes]:
        assert arguments == {"stream": True, "follow": False, "stderr": False}
        return iter([line[:30], line[30:]])

    front = SimpleNamespace(labels={labels.REGISTRY: "b"} if has_front else {}, logs=logs)
    engine: Any = SimpleNamespace(
        containers=SimpleNamespace(
            list=lambda filters, **_: [front] if filters == {"name": "^/cache$"} else []
        )
    )

    requests = pruning.requests_in_log(engine, "cache")

    assert list(requests) == ([("team/app", "1")] if has_front else [])
    assert pruning.requests_in_log(engine, "gone") == NO_REQUESTS
