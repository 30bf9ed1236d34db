"""cachectl and image sets with a team's stack: services of a Swarm over an object store."""

import json
import signal
from pathlib import Path

import pytest

from talos_registry_cache.registry import layout
from tests.integration.support import images
from tests.integration.support.cachectl import Cachectl
from tests.integration.support.pulling import pulling
from tests.integration.support.team import READER, REGISTRY, Team

OK, NOT_ALL_THERE = 0, 3
# Requests of about four pulls, from two nodes.
SHOWN = 50
ENDS_WITHIN_S = 60


@pytest.fixture(scope="module")
def cachectl(ours: Team, tmp_path_factory: pytest.TempPathFactory) -> Cachectl:
    """Cachectl with the keys of the store and the password of a reader."""
    # Temporary registries listen on the loopback address of the manager.
    enter = ours.bed.manager.engine.enter
    made = Cachectl(ours.stack.name, tmp_path_factory.mktemp("cachectl"), enter)
    made.env |= {
        "DOCKER_HOST": ours.bed.manager.engine.host,
        "AWS_ACCESS_KEY_ID": ours.bed.store.access_key,
        "AWS_SECRET_ACCESS_KEY": ours.bed.store.secret_key,
        "CACHECTL_PASSWORD": ours.password,
    }
    made.env.pop("AWS_CA_BUNDLE", None)
    return made


def largest(ours: Team) -> str:
    """The digest of the largest blob in the store."""
    path, _ = max(ours.bed.store.objects().items(), key=lambda one: one[1])
    return f"sha256:{path.split('/')[-2]}"


def test_warm_status_verify_scrub_and_prune(ours: Team, cachectl: Cachectl, tmp_path: Path) -> None:
    kept, dropped = (ours.bed.upstream.push_index().name for _ in range(2))

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

    ours.settled()
    layer = largest(ours)
    ours.bed.store.client().put_object(
        Bucket=ours.bed.store.bucket,
        Key=f"docker.io/{layout.blob_folder(layer)}/data",
        Body=b"damaged",
    )
    scrubbed = cachectl("scrub", "--json")
    repaired = cachectl("scrub", "--repair")
    forced = ours.service()["Spec"]["TaskTemplate"]["ForceUpdate"]
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
    assert set(ours.stack.preview()) == {"same"}


def test_status_adds_up_the_metrics_of_all_nodes(ours: Team, cachectl: Cachectl) -> None:
    image = ours.bed.upstream.push_index()
    for host in ours.bed.hosts:
        ours.pull(host, image)

    metrics = cachectl("status", "--json").result[REGISTRY]["stored"]["metrics"]

    assert metrics["from_upstream"] >= sum(images.LAYER_SIZES)
    assert metrics["to_clients"] >= len(ours.bed.hosts) * sum(images.LAYER_SIZES)


def test_logs_shows_all_nodes(ours: Team, cachectl: Cachectl) -> None:
    image = ours.bed.upstream.push_index()
    for host in ours.bed.hosts:
        ours.pull(host, image)

    said = cachectl("logs", "--tail", "1000")

    pulls = [line for line in said.out.splitlines() if image.repository in line and "GET" in line]
    assert len(pulls) >= len(ours.bed.hosts)


def test_watch_shows_the_pulls_of_all_nodes(ours: Team, cachectl: Cachectl) -> None:
    image = ours.bed.upstream.push_index()
    with cachectl.start("watch", "--json") as watching:
        assert watching.stdout
        # It follows the logs from some moment after its start on.
        with pulling(lambda: [ours.pull(host, image) for host in ours.bed.hosts]):
            shown = [json.loads(watching.stdout.readline()) for _ in range(SHOWN)]
        watching.send_signal(signal.SIGINT)
        assert watching.wait(ENDS_WITHIN_S) == OK

    assert {one["registry"] for one in shown} == {REGISTRY}
    assert image.repository in {one["repository"] for one in shown}
    assert {"hit", "shared"} & {one["result"] for one in shown}


def test_an_image_set_is_cached_and_the_keys_are_not_shown(ours: Team) -> None:
    image = ours.bed.upstream.push_index()
    reference = f"{REGISTRY}/{image.name}"
    ours.stack.configure({"references": [reference]}, "images")

    ours.stack.up()

    assert ours.stack.outputs()["images"] == {reference: image.digest}
    assert ours.bed.store.secret_key not in ours.stack.export()
