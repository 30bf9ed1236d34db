import asyncio
from typing import Any

import pulumi
import pytest

from components import engine
from components.hooks import VolumeHooks
from talos_registry_cache.engine import file_owner
from talos_registry_cache.engine.file_owner import OwnershipError

STORAGE = {"volumeName": "data", "containerPath": "/var/lib/registry"}
FILES = {"volumeName": "files", "containerPath": "/credentials", "readOnly": True}


def before(**inputs: Any) -> None:
    before_all([inputs])


def before_all(containers: list[dict[str, Any]]) -> None:
    """Create several containers at once."""
    hooks = VolumeHooks()

    async def create() -> None:
        await asyncio.gather(
            *(
                hooks.hand_over(
                    pulumi.ResourceHookArgs(
                        urn="", id="", name="quay.io-container", type="", new_inputs=inputs
                    )
                )
                for inputs in containers
            )
        )

    asyncio.run(create())


@pytest.fixture
def handed_over(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, str]]:
    """The volumes that were handed over, each with its image and first folder."""
    made: list[tuple[str, str, str]] = []
    monkeypatch.setattr(engine, "client", lambda: None)
    monkeypatch.setattr(
        file_owner,
        "hand_over",
        lambda _, volume, image, first, __: made.append((volume, image, first)),
    )
    return made


def test_only_the_storage_volume_changes_owner(handed_over: list[tuple[str, str, str]]) -> None:
    before(image="sha256:1", volumes=[STORAGE, FILES])

    assert handed_over == [("data", "sha256:1", "docker")]


def test_a_volume_of_several_containers_changes_owner_once(
    handed_over: list[tuple[str, str, str]],
) -> None:
    shared = {"volumeName": "shared", "containerPath": "/tmp"}  # noqa: S108
    registry = {"image": "sha256:1", "volumes": [STORAGE, shared]}
    front = {"image": "sha256:2", "volumes": [shared, {**STORAGE, "readOnly": True}]}

    before_all([front, registry])

    assert sorted(handed_over) == [("data", "sha256:1", "docker"), ("shared", "sha256:2", "nginx")]


@pytest.mark.parametrize("volumes", [None, [], [FILES], [{**STORAGE, "readOnly": True}]])
def test_read_only_volumes_keep_their_owner(
    handed_over: list[tuple[str, str, str]], volumes: list[dict[str, Any]] | None
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
