"""What a team's stack lives through: updates, lost nodes, a store that is away or slow."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import httpx2
import pytest
from pulumi.automation import CommandError

from components.certificate_authority import issue_authority
from tests.integration.support import http_pull, images, team, team_bed
from tests.integration.support.containerd import Containerd
from tests.integration.support.polling import eventually
from tests.integration.support.pulling import pulling
from tests.integration.support.swarm import Host
from tests.integration.support.team import READER, REGISTRY, Team

BLOBS = 1 + len(images.LAYER_SIZES)
SERVES_WITHIN_S = 90
SLOW_S = 0.1
SLOW_LINK_MBIT = 10

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


def test_an_update_rolls_from_node_to_node_and_no_pull_fails(
    up: Team, containerd: Containerd
) -> None:
    image = up.bed.upstream.push_index()
    up.pull(up.bed.manager, image)
    hosts = up.hosts_folder()
    changed = up.stack.settings()
    changed["logs"] = {"level": "debug"}
    up.stack.configure(changed)

    with pulling(lambda: containerd.pull_by(REGISTRY, image, hosts)) as pulls:
        changes = up.stack.up()

    assert changes.get("update") == 1
    assert "REGISTRY_LOG_LEVEL=debug" in _environment(up)
    assert pulls.failures == []
    assert pulls.done > 2


def test_a_new_password_rolls_from_node_to_node_and_other_readers_notice_nothing(
    up: Team, containerd: Containerd
) -> None:
    image = up.bed.upstream.push_index()
    up.pull(up.bed.manager, image)
    hosts = up.hosts_folder()
    up.stack.set_secret("readers.newcomer", "welcome")

    with pulling(lambda: containerd.pull_by(REGISTRY, image, hosts)) as pulls:
        up.stack.up()

    assert pulls.failures == []
    assert pulls.done > 2
    with up.client() as http:
        for host in up.bed.hosts:
            url = f"{team.endpoint(host)}/v2/"
            assert http.get(url, auth=("newcomer", "welcome")).status_code == 200
            assert http.get(url, auth=(READER, up.password)).status_code == 200


def test_an_update_that_does_not_come_up_is_told_and_taken_back(up: Team) -> None:
    image, ca = up.bed.upstream.push_index(), up.stack.outputs()["ca"]
    right, wrong = up.stack.settings(), up.stack.settings()
    now = datetime.now(UTC)
    one, other = issue_authority("one", now), issue_authority("other", now)
    wrong["tls"] = {"kind": "given", "certificate": one.certificate}
    up.stack.configure(wrong)
    up.stack.set_secret("tlsKey", other.key)
    with pytest.raises(CommandError, match="was not updated and is as before"):
        up.stack.up()

    with up.client(ca) as http:
        assert http_pull.pull(team.endpoint(up.bed.manager), image, http).digest == image.digest
    up.stack.configure(right)
    up.stack.pulumi("config", "rm", "tlsKey")
    up.stack.up()
    assert up.pull(up.bed.hosts[-1], image).digest == image.digest


def test_a_lost_node_costs_no_pull_and_is_back_by_itself(up: Team, containerd: Containerd) -> None:
    image = up.bed.upstream.push_index()
    up.pull(up.bed.manager, image)
    up.settled()
    hosts, lost = up.hosts_folder(), up.bed.hosts[-1]
    asked = len(up.front.blobs_served())

    with pulling(lambda: containerd.pull_by(REGISTRY, image, hosts)) as pulls:
        lost.lose()
        try:
            eventually(lambda: pulls.done > 4, within_s=60, what="pulls go on")
        finally:
            lost.back()
        eventually(lambda: _serves(up, lost), within_s=SERVES_WITHIN_S, what="it serves again")

    assert pulls.failures == []
    assert len(up.front.blobs_served()) == asked
    assert up.pull(lost, image).digest == image.digest


def test_while_the_store_is_away_nodes_go_to_the_upstream_and_afterwards_all_is_served(
    up: Team, containerd: Containerd
) -> None:
    stored, new = up.bed.upstream.push_index(), up.bed.upstream.push_index()
    node = up.bed.manager
    up.pull(node, stored)
    up.settled()
    hosts = up.hosts_folder(then=up.bed.upstream.url)

    up.bed.store.stop()
    try:
        for image in (stored, new):
            with pytest.raises(httpx2.HTTPStatusError, match="500"):
                up.pull(node, image)
            # A node goes on to the registry itself, which is the next one that it knows.
            assert containerd.pull_by(REGISTRY, image, hosts) == image.digest
    finally:
        up.bed.store.start()

    asked = len(up.front.blobs_served())
    assert up.pull(node, stored).digest == stored.digest
    assert len(up.front.blobs_served()) == asked
    assert up.pull(node, new).digest == new.digest


def test_a_slow_store_serves_whole_images(up: Team) -> None:
    image = up.bed.upstream.push_index()

    with up.bed.store.slow(SLOW_S):
        cold = up.pull(up.bed.manager, image)
        warm = up.pull(up.bed.hosts[-1], image)

    assert cold == warm
    assert cold.digest == image.digest


def test_a_cache_that_is_killed_while_it_fetches_serves_nothing_by_halves(up: Team) -> None:
    image = up.bed.upstream.push_index()
    node = up.bed.hosts[-1]
    up.bed.upstream.limit(SLOW_LINK_MBIT)
    try:
        with ThreadPoolExecutor(1) as pool:
            pull = pool.submit(up.pull, node, image)
            eventually(
                lambda: any("/_uploads/" in key for key in up.bed.store.objects()),
                within_s=30,
                what="an upload has begun",
            )
            with node.engine.client() as engine:
                for container in engine.containers.list():
                    container.kill()
            with pytest.raises(httpx2.HTTPError):
                pull.result()
    finally:
        up.bed.upstream.limit(10_000)
    eventually(lambda: _serves(up, node), within_s=SERVES_WITHIN_S, what="it is started again")

    assert up.pull(node, image).digest == image.digest


def test_two_nodes_that_are_asked_for_the_same_at_once_each_fetch_it_at_most_once(
    up: Team,
) -> None:
    image = up.bed.upstream.push_index()
    before = len(up.front.blobs_served())

    with ThreadPoolExecutor() as pool:
        pulled = list(pool.map(lambda host: up.pull(host, image), up.bed.hosts))

    assert pulled[0] == pulled[1]
    assert BLOBS <= len(up.front.blobs_served()) - before <= BLOBS * len(up.bed.hosts)


def _serves(up: Team, host: Host) -> bool:
    try:
        with up.client() as http:
            return http.get(f"{team.endpoint(host)}/v2/").is_success
    except httpx2.TransportError:
        return False


def _environment(up: Team) -> list[str]:
    return list(up.service()["Spec"]["TaskTemplate"]["ContainerSpec"]["Env"])
