import asyncio
from typing import Any

import pulumi
import pytest

from components import engine
from components.hooks import hand_over_storage
from talos_registry_cache.engine import file_owner
from talos_registry_cache.engine.file_owner import OwnershipError

STORAGE = {"volumeName": "data", "containerPath": "/var/lib/registry"}
SHARED = {"volumeName": "shared", "containerPath": "/tmp"}  # noqa: S108
FILES = {"volumeName": "files", "containerPath": "/credentials", "readOnly": True}


def before(**inputs: Any) -> None:
    """Create a container."""
    arguments = pulumi.ResourceHookArgs(
        urn="", id="", name="quay.io-container", type="", new_inputs=inputs
    )
    asyncio.run(hand_over_storage(arguments))


@pytest.fixture
def handed_over(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """The volumes that were handed over, each with its image."""
    made: list[tuple[str, str]] = []
    monkeypatch.setattr(engine, "client", lambda: None)
    monkeypatch.setattr(
        file_owner,
        "hand_over",
        lambda _, volume, image, __: made.append((volume, image)),
    )
    return made


def test_only_the_storage_volume_changes_owner(handed_over: list[tuple[str, str]]) -> None:
    before(image="sha256:1", volumes=[STORAGE, SHARED, FILES])

    assert handed_over == [("data", "sha256:1")]


@pytest.mark.parametrize("volumes", [None, [], [FILES]])
def test_other_volumes_keep_their_owner(
    handed_over: list[tuple[str, str]], volumes: list[dict[str, Any]] | None
) -> None:
    before(image="sha256:1", volumes=volumes)

    assert handed_over == []


def test_a_volume_whose_owner_cannot_change_causes_a_warning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: Any) -> None:
        raise OwnershipError("the volume data cannot be given away")

    warned: list[str] = []
    monkeypatch.setattr(engine, "client", lambda: None)
    monkeypatch.setattr(file_owner, "hand_over", refuse)
    monkeypatch.setattr(pulumi.log, "warn", warned.append)

    before(image="sha256:1", volumes=[STORAGE])

    assert warned == ["quay.io-container: the volume data cannot be given away"]
