"""The stack of a team: the same caches on the nodes of a Swarm, over one object store."""

import functools
import json
from collections.abc import Iterator

import httpx2
import pytest

from tests.integration.support import images, swarm_belongings, team, team_bed
from tests.integration.support.polling import eventually
from tests.integration.support.swarm import Host
from tests.integration.support.team import READER, Team

BLOBS = 1 + len(images.LAYER_SIZES)

pytestmark = [
    pytest.mark.skipif(
        bool(team_bed.why_impossible()), reason=team_bed.why_impossible() or "possible"
    ),
    pytest.mark.timeout(400),
]


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    with (
        team_bed.running(tmp_path_factory.mktemp("bed")) as bed,
        team.running(tmp_path_factory.mktemp("team"), bed) as made,
    ):
        yield made


def test_each_node_runs_the_cache_and_another_up_changes_nothing(up: Team) -> None:
    assert set(up.stack.preview()) == {"same"}
    assert set(up.stack.refresh()) == {"same"}
    assert set(up.stack.up()) == {"same"}
    nodes = up.docker("service", "ps", up.service_name, "--format", "{{.Node}} {{.CurrentState}}")
    assert sorted(line.split()[0] for line in nodes.splitlines()) == [
        host.name for host in up.bed.hosts
    ]
    assert "Running" in nodes


def test_what_one_node_has_fetched_costs_the_upstream_nothing_through_another(up: Team) -> None:
    image = up.bed.upstream.push_index()
    first, last = up.bed.hosts[0], up.bed.hosts[-1]
    before = len(up.front.blobs_served())

    cold = up.pull(first, image)
    once = len(up.front.blobs_served()) - before
    up.settled()
    warm = up.pull(last, image)

    assert cold == warm
    assert cold.digest == image.digest
    assert once == BLOBS
    assert len(up.front.blobs_served()) - before == BLOBS


def test_strangers_get_nothing(up: Team) -> None:
    url = f"{team.endpoint(up.bed.manager)}/v2/"
    with pytest.raises(httpx2.ConnectError, match="certificate verify failed"):
        httpx2.get(url, trust_env=False)
    with up.client() as http:
        assert http.get(url).status_code == 200
        assert http.get(url, auth=None).status_code == 401
        assert http.get(url, auth=(READER, "wrong")).status_code == 401
        assert http.get(url, auth=("stranger", up.password)).status_code == 401
    with pytest.raises(httpx2.HTTPError):
        httpx2.get(url.replace("https", "http"), trust_env=False).raise_for_status()


def test_no_secret_is_seen_on_the_swarm_or_in_the_state(up: Team) -> None:
    wanted = [up.password, up.bed.store.secret_key, up.bed.store.access_key, "PRIVATE KEY"]
    shown = [json.dumps(up.service()), up.stack.export(), up.stack.pulumi("stack", "output")]
    for host in up.bed.hosts:
        with host.engine.client() as engine:
            shown += [json.dumps(container.attrs) for container in engine.containers.list()]
            shown += [container.logs().decode() for container in engine.containers.list()]

    assert len(shown) > len(up.bed.hosts)
    for text in shown:
        assert not [secret for secret in wanted if secret in text]


def test_destroy_leaves_nothing_on_the_swarm_and_keeps_what_is_stored(up: Team) -> None:
    image = up.bed.upstream.push_index()
    up.pull(up.bed.manager, image)
    kept = up.settled()

    up.stack.destroy()

    assert swarm_belongings.of_stack(up.bed.manager.engine.host, up.stack.name) == {}
    for host in up.bed.hosts:
        eventually(
            functools.partial(_has_no_container, host),
            within_s=30,
            what=f"{host.name} has no container",
        )
    assert up.bed.store.objects() == kept
    up.stack.up()
    asked = len(up.front.blobs_served())
    assert up.pull(up.bed.hosts[-1], image).digest == image.digest
    assert len(up.front.blobs_served()) == asked


def _has_no_container(host: Host) -> bool:
    with host.engine.client() as engine:
        return not engine.containers.list(all=True)
