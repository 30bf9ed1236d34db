"""cachectl and image sets on the stack of a team: services of a Swarm, over an object store."""

from collections.abc import Iterator
from pathlib import Path

import obstore
import pytest

from registry import storage
from registry.object_store import Keys, Place, opened
from tests.integration.support import images, team, team_bed
from tests.integration.support.cachectl import Cachectl
from tests.integration.support.team import READER, REGISTRY, Team

OK, NOT_ALL_THERE = 0, 3

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


@pytest.fixture(scope="module")
def cachectl(up: Team, tmp_path_factory: pytest.TempPathFactory) -> Cachectl:
    """As somebody runs it who has the keys of the store and may read."""
    # Throw-away registries listen on the manager's own loopback.
    enter = up.bed.manager.engine.enter
    made = Cachectl(up.stack.name, tmp_path_factory.mktemp("cachectl"), enter)
    made.env |= {
        "DOCKER_HOST": up.bed.manager.engine.host,
        "AWS_ACCESS_KEY_ID": up.bed.store.access_key,
        "AWS_SECRET_ACCESS_KEY": up.bed.store.secret_key,
        "CACHECTL_PASSWORD": up.password,
    }
    made.env.pop("AWS_CA_BUNDLE", None)
    return made


def largest(up: Team) -> str:
    """The digest of what takes the most in the store."""
    path, _ = max(up.bed.store.objects().items(), key=lambda one: one[1])
    return f"sha256:{path.split('/')[-2]}"


def test_what_is_warmed_is_shown_proved_repaired_and_pruned(
    up: Team, cachectl: Cachectl, tmp_path: Path
) -> None:
    kept, dropped = (up.bed.upstream.push_index().name for _ in range(2))

    warmed = cachectl("warm", kept, dropped, "--username", READER, "--json")
    again = cachectl("warm", kept, dropped, "--username", READER, "--json")
    shown = cachectl("status", "--json")
    proved = cachectl("verify", "--json")

    assert (warmed.code, again.code, shown.code, proved.code) == (OK, OK, OK, OK), warmed.err
    assert all(image["fetched"] > 0 for image in warmed.result)
    assert all(image["fetched"] == 0 for image in again.result)
    assert [image["proved"] for image in proved.result] == [True, True]
    cache = shown.result[REGISTRY]
    assert cache["health"] == "healthy"
    assert cache["stored"]["tags"] == 2

    up.settled()
    layer = largest(up)
    place = Place(up.bed.store.bucket, "docker.io", endpoint=up.bed.store.endpoint)
    store = opened(place, Keys(up.bed.store.access_key, up.bed.store.secret_key))
    obstore.put(store, f"{storage.blob_folder(layer)}/data", b"damaged")
    scrubbed = cachectl("scrub", "--json")
    repaired = cachectl("scrub", "--repair")
    forced = up.service()["Spec"]["TaskTemplate"]["ForceUpdate"]
    lost = cachectl("verify")
    cachectl("warm", kept, dropped, "--username", READER)
    healed = cachectl("verify")

    assert scrubbed.code == NOT_ALL_THERE
    assert [damage["digest"] for damage in scrubbed.result] == [layer]
    assert (repaired.code, forced, lost.code, healed.code) == (OK, 1, NOT_ALL_THERE, OK)

    (tmp_path / "keep.txt").write_text(kept)
    pruned = cachectl("prune", "--keep", tmp_path / "keep.txt", "--yes", "--json")
    left = cachectl("verify", "--json")

    assert (pruned.code, left.code) == (OK, OK), pruned.err
    assert dropped in [image["image"] for image in pruned.result[REGISTRY]["images"]]
    assert [image["image"] for image in left.result] == [f"{REGISTRY}/{kept}"]
    assert set(up.stack.preview()) == {"same"}


def test_what_nodes_count_is_asked_of_all(up: Team, cachectl: Cachectl) -> None:
    image = up.bed.upstream.push_index()
    for host in up.bed.hosts:
        up.pull(host, image)

    metrics = cachectl("status", "--json").result[REGISTRY]["stored"]["metrics"]

    assert metrics["from_upstream"] >= sum(images.LAYER_SIZES)
    assert metrics["to_clients"] >= len(up.bed.hosts) * sum(images.LAYER_SIZES)


def test_logs_are_those_of_all_nodes(up: Team, cachectl: Cachectl) -> None:
    image = up.bed.upstream.push_index()
    for host in up.bed.hosts:
        up.pull(host, image)

    said = cachectl("logs", "--tail", "1000")

    pulls = [line for line in said.out.splitlines() if image.repository in line and "GET" in line]
    assert len(pulls) >= len(up.bed.hosts)


def test_an_image_set_is_cached_and_the_keys_are_not_shown(up: Team) -> None:
    image = up.bed.upstream.push_index()
    reference = f"{REGISTRY}/{image.name}"
    up.stack.configure({"references": [reference]}, "images")

    up.stack.up()

    assert up.stack.outputs()["images"] == {reference: image.digest}
    assert up.bed.store.secret_key not in up.stack.export()
