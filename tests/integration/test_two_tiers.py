"""A workstation whose caches use the team's caches as parents."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.support import host, http_pull, images, stack, team, team_bed
from tests.integration.support.containerd import Containerd
from tests.integration.support.polling import eventually
from tests.integration.support.processes import CommandFailedError
from tests.integration.support.stack import CacheStack
from tests.integration.support.swarm import Host
from tests.integration.support.team import PORT, READER, REGISTRY, Team
from tests.integration.support.upstream import Pushed

BLOBS = 1 + len(images.LAYER_SIZES)

pytestmark = pytest.mark.usefixtures("beds_are_possible")


@pytest.fixture(scope="module")
def teams(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    with (
        team_bed.running(tmp_path_factory.mktemp("bed"), hosts=1) as bed,
        team.running(tmp_path_factory.mktemp("team"), bed) as made,
    ):
        yield made


@pytest.fixture(scope="module")
def workstation(teams: Team) -> Iterator[Host]:
    with teams.bed.more_host() as made:
        yield made


@pytest.fixture(scope="module")
def own(
    tmp_path_factory: pytest.TempPathFactory, teams: Team, workstation: Host
) -> Iterator[CacheStack]:
    """The caches of the workstation, with the team's as parents."""
    settings = _settings(teams, workstation)
    folder = tmp_path_factory.mktemp("own")
    with (
        workstation.engine.client() as engine,
        stack.stack(folder, engine, settings, engine_host=workstation.engine.host) as made,
    ):
        made.set_secret("passwords.via", teams.password)
        made.up()
        yield made


def test_a_new_workstation_fetches_nothing_from_the_upstream(
    teams: Team, workstation: Host, own: CacheStack
) -> None:
    image = teams.bed.upstream.push_index()
    warm = teams.pull(teams.bed.manager, image)
    teams.settled(warm)
    asked = len(teams.gate.blobs_served())

    assert _pull(own, workstation, image) == warm
    assert len(teams.gate.blobs_served()) == asked
    with teams.bed.upstream.away():
        assert _pull(own, workstation, image) == warm


def test_a_new_image_is_cached_by_both_tiers(
    teams: Team, workstation: Host, own: CacheStack
) -> None:
    # A registry requests the size of a blob, and then the blob. The team's cache fetches it for
    # the first request, and may fetch it again for the second one while the first is in progress
    # (distribution 3.1.2, proxyblobstore.go). On a busy machine, it may not store the first copy.
    image = teams.bed.upstream.push_index()
    served = teams.gate.blobs_served
    asked = len(served())

    cold = _pull(own, workstation, image)

    assert BLOBS <= len(served()) - asked <= 2 * BLOBS

    def is_held() -> bool:
        before = len(served())
        assert teams.pull(teams.bed.manager, image) == cold
        return len(served()) == before

    eventually(is_held, within_s=60, what="the team's caches hold it", every_s=1)
    asked = len(served())
    assert _pull(own, workstation, image) == cold
    assert len(served()) == asked


def test_cached_images_are_served_and_others_come_from_the_registry_while_the_team_is_away(
    tmp_path: Path, teams: Team, workstation: Host, own: CacheStack, containerd: Containerd
) -> None:
    held, new = teams.bed.upstream.push_index(), teams.bed.upstream.push_index()
    _pull(own, workstation, held)
    mirror = f"http://{workstation.address}:{PORT}"
    with_fallback = _hosts(tmp_path / "with", mirror, then=teams.bed.upstream.url)
    teams.bed.manager.engine.crash()
    try:
        assert _pull(own, workstation, held).digest == held.digest
        assert containerd.pull_by(REGISTRY, new, with_fallback) == new.digest
        with pytest.raises(CommandFailedError):
            containerd.pull_by(REGISTRY, new, _hosts(tmp_path / "only", mirror, then=mirror))
    finally:
        teams.bed.manager.engine.start()

    def back() -> bool:
        return containerd.pull_by(REGISTRY, new, with_fallback) == new.digest

    eventually(back, within_s=60, what="the team's caches are back")


def test_the_password_for_the_parent_cache_is_not_shown(
    teams: Team, workstation: Host, own: CacheStack
) -> None:
    with workstation.engine.client() as engine:
        containers = engine.containers.list(all=True)
        shown = [json.dumps(one.attrs) for one in containers] + [
            one.logs().decode() for one in containers if one.status == "running"
        ]

    for text in (*shown, own.export(), own.pulumi("stack", "output")):
        assert teams.password not in text


def test_a_wrong_password_and_an_unknown_ca_are_rejected_by_the_parent_cache(
    tmp_path: Path, teams: Team, workstation: Host
) -> None:
    image = teams.bed.upstream.push_index()
    for name, password, ca in (
        ("password", "wrong", teams.stack.outputs()["ca"]),
        ("authority", teams.password, None),
    ):
        settings = _settings(teams, workstation, port=host.free_port())
        settings["via"]["ca"] = ca
        with (
            workstation.engine.client() as engine,
            stack.stack(
                tmp_path / name, engine, settings, engine_host=workstation.engine.host
            ) as made,
        ):
            made.set_secret("passwords.via", password)
            made.up()
            with pytest.raises(Exception, match=r"4\d\d|50\d"):
                _pull(made, workstation, image)


def _settings(teams: Team, workstation: Host, port: int = PORT) -> dict[str, Any]:
    outputs = teams.stack.outputs()
    return {
        "mirrorHost": workstation.address,
        "upstreams": {REGISTRY: {"port": port}},
        "via": {"mirrors": outputs["mirrors"], "ca": outputs["ca"], "username": READER},
    }


def _pull(own: CacheStack, workstation: Host, image: Pushed) -> http_pull.Pulled:
    port = own.settings()["upstreams"][REGISTRY]["port"]
    return http_pull.pull(f"http://{workstation.address}:{port}", image)


def _hosts(folder: Path, mirror: str, then: str) -> Path:
    file = folder / REGISTRY / "hosts.toml"
    file.parent.mkdir(parents=True)
    file.write_text(f'server = "{then}"\n[host."{mirror}"]\ncapabilities = ["pull", "resolve"]\n')
    return folder
