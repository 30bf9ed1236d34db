"""cachectl on the real engine: caches that are filled, proved, repaired, carried and emptied."""

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests
import yaml
import zstandard
from docker import DockerClient
from docker.models.containers import Container

from talos_registry_cache.cli.oci_layout import REF_NAME
from talos_registry_cache.talos import versions
from talos_registry_cache.talos.images import of_cluster
from tests.integration.support import (
    belongings,
    docker_cli,
    host,
    images,
    private_engine,
    stored,
    warming,
)
from tests.integration.support.cachectl import Cachectl
from tests.integration.support.containerd import Containerd
from tests.integration.support.polling import PATIENCE, eventually
from tests.integration.support.pulling import pulling
from tests.integration.support.stack import CacheStack, stack, upstreams
from tests.integration.support.upstream import Upstream
from tests.support import layouts

HUB, QUAY = REGISTRIES = ("docker.io", "quay.io")
OK, FAILED, USAGE, NOT_ALL_THERE = range(4)
INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Caches:
    """A stack that is up, and cachectl for it."""

    stack: CacheStack
    cachectl: Cachectl
    containers: dict[str, Container]


@pytest.fixture(scope="module")
def caches(
    tmp_path_factory: pytest.TempPathFactory, engine: DockerClient, upstream: Upstream
) -> Iterator[Caches]:
    yield from _caches(tmp_path_factory, engine, upstream)


@pytest.fixture(scope="module")
def other(
    tmp_path_factory: pytest.TempPathFactory, engine: DockerClient, upstream: Upstream
) -> Iterator[Caches]:
    """Those of another machine, as it were."""
    yield from _caches(tmp_path_factory, engine, upstream)


def _caches(
    factory: pytest.TempPathFactory, engine: DockerClient, upstream: Upstream
) -> Iterator[Caches]:
    folder = factory.mktemp("cachectl")
    with stack(folder, engine, {"upstreams": upstreams(upstream.url, *REGISTRIES)}) as made:
        made.up()
        yield Caches(made, Cachectl(made.name, folder), belongings.registries(engine, made.name))


@pytest.mark.modern_engine
def test_what_was_warmed_is_proved_while_the_upstream_is_away(
    caches: Caches, upstream: Upstream
) -> None:
    hub, quay = (upstream.push_index().name for _ in REGISTRIES)
    texts = (hub, f"{QUAY}/{quay}")

    warmed = caches.cachectl("warm", *texts, "--json")
    again = caches.cachectl("warm", *texts, "--json")
    with upstream.away():
        proved = caches.cachectl("verify", *texts, "--json")
        all_proved = caches.cachectl("verify", "--json")

    assert (warmed.code, again.code, proved.code, all_proved.code) == (OK,) * 4
    assert all(image["fetched"] > 5_000_000 for image in warmed.result)
    assert [image["fetched"] for image in again.result] == [0, 0]
    full = [f"{HUB}/{hub}", f"{QUAY}/{quay}"]
    assert [(image["image"], image["proved"]) for image in proved.result] == [
        (name, True) for name in full
    ]
    assert set(full) <= {image["image"] for image in all_proved.result}


def test_an_image_that_is_missing_is_named_and_stops_no_other_one(
    caches: Caches, upstream: Upstream
) -> None:
    image = upstream.push_index().name

    warmed = caches.cachectl("warm", "team/none:1", image, "--json")
    proved = caches.cachectl("verify", "team/none:1", image, "--json")
    table = caches.cachectl("verify", "team/none:1", image)

    assert {warmed.code, proved.code, table.code} == {NOT_ALL_THERE}
    assert "404" in warmed.result[0]["errors"][0]
    assert warmed.result[1]["errors"] == []
    assert "404 MANIFEST_UNKNOWN" in proved.result[0]["errors"][0]
    assert [one["proved"] for one in proved.result] == [False, True]
    [row] = [line.split() for line in table.out.splitlines() if "team/none:1" in line]
    assert row[1:] == ["missing"]


def test_two_warmings_at_once_fetch_once(caches: Caches, upstream: Upstream) -> None:
    image = upstream.push_index().name
    started = [caches.cachectl.start("warm", image, "--json") for _ in range(2)]

    ended = [process.communicate(timeout=PATIENCE * 60) for process in started]

    assert [process.returncode for process in started] == [OK, OK]
    fetched = sorted('"fetched": 0' in out for out, _ in ended)
    assert fetched == [False, True]


def test_ctrl_c_leaves_no_container_behind(
    caches: Caches, upstream: Upstream, engine: DockerClient
) -> None:
    image = upstream.push_index().name
    volume = caches.stack.outputs()["caches"][HUB]["storage"]
    filters: dict[str, str | list[str] | bool] = {
        "label": f"talos-registry-cache.temporary={volume}"
    }
    process = caches.cachectl.start("verify", image)
    eventually(
        lambda: engine.containers.list(all=True, filters=filters, ignore_removed=True),
        within_s=30,
        what="a temporary registry is made",
    )
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=PATIENCE * 60)

    assert process.returncode == INTERRUPTED
    assert said.endswith("cachectl: interrupted\n")
    assert "Traceback" not in said
    assert engine.containers.list(all=True, filters=filters, ignore_removed=True) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("warm",), "no image to warm"),
        (("warm", "UPPER/case:1:2"), "is not an image reference"),
        (("verify", "--images", "absent.txt"), "absent.txt cannot be read"),
        (("verify", "a/b:1", "--platform", "amd64"), "is not a platform"),
        (("verify", "--stack", "nowhere"), "the stack nowhere is not up"),
        (("prune",), "no filter: give --keep"),
        (("prune", "--older-than", "30"), "'30' is not an age"),
        (("prune", "--size", "much"), "'much' is not a size"),
        (("import", "absent.zst"), "absent.zst cannot be read"),
        (("import", "/dev/null"), "neither a file nor a folder"),
    ],
)
def test_a_mistake_is_named_before_anything_is_done(
    caches: Caches, arguments: tuple[str, ...], words: str
) -> None:
    ended = caches.cachectl(*arguments)

    assert ended.code == USAGE
    assert words in ended.err


def _push(upstream: Upstream) -> tuple[str, str]:
    """A new image, and the digest of its largest layer."""
    pushed, image = warming.push(upstream, images.LAYER_SIZES)
    return pushed.name, image.blobs[-1].digest


@pytest.mark.modern_engine
def test_a_damaged_blob_is_found_repaired_and_fetched_again(
    caches: Caches, upstream: Upstream
) -> None:
    image, layer = _push(upstream)
    caches.cachectl("warm", image)
    stored.damage(caches.containers[HUB], layer)

    verified = caches.cachectl("verify", image, "--json")
    found = caches.cachectl("scrub", "--json")
    repaired = caches.cachectl("scrub", "--repair", "--json")
    clean = caches.cachectl("scrub")
    gone = caches.cachectl("verify", image, "--json")
    warmed = caches.cachectl("warm", image, "--json")
    healed = caches.cachectl("verify", image)

    assert verified.code == NOT_ALL_THERE
    assert layer in verified.result[0]["errors"][0]
    assert (found.code, repaired.code, clean.code) == (NOT_ALL_THERE, OK, OK)
    [damage] = found.result
    assert (damage["upstream"], damage["digest"]) == (HUB, layer)
    assert damage["repositories"] == [image.partition(":")[0]]
    [error] = gone.result[0]["errors"]
    assert "404" in error
    # Twice from the front, which remembers the layer for half a minute, and from the upstream.
    assert 5_000_000 < warmed.result[0]["fetched"] < 15_100_000
    assert healed.code == OK


@pytest.mark.modern_engine
def test_what_was_exported_is_imported_elsewhere_without_network(
    caches: Caches, other: Caches, upstream: Upstream, tmp_path: Path
) -> None:
    hub, quay = (upstream.push_index() for _ in REGISTRIES)
    texts = (hub.name, f"{QUAY}/{quay.name}")
    caches.cachectl("warm", *texts)
    archive = tmp_path / "caches.tar.zst"

    with upstream.away():
        exported = caches.cachectl("export", archive, "--json")
        before = other.cachectl("verify", *texts)
        imported = other.cachectl("import", archive, "--json")
        proved = other.cachectl("verify", *texts)
        held = _held(other)
        again = other.cachectl("import", archive, "--json")
        endpoint = other.stack.outputs()["caches"][HUB]["endpoint"]
        pulled = docker_cli.pull(endpoint, hub)

    assert (exported.code, before.code, imported.code) == (OK, NOT_ALL_THERE, OK)
    assert (proved.code, again.code) == (OK, OK)
    assert set(exported.result["caches"]) == set(imported.result) == set(REGISTRIES)
    assert f"{HUB}/{hub.name}" in imported.result[HUB]["images"]
    assert archive.stat().st_size == exported.result["size"]
    assert archive.stat().st_mode & 0o777 == 0o600
    assert pulled == hub.digest
    assert (imported.result, held) == (again.result, _held(other))
    assert other.cachectl("scrub").code == OK
    assert [path.name for path in tmp_path.iterdir()] == [archive.name]


@pytest.mark.modern_engine
def test_two_platforms_are_warmed_proved_and_carried(
    caches: Caches, other: Caches, upstream: Upstream, tmp_path: Path
) -> None:
    """One image for both platforms, and one for a platform that the other one lacks."""
    index, single = upstream.push_index(), upstream.push(images.oci_index(host.architecture()))
    texts = (index.name, single.name)
    here, there = (f"linux/{one}" for one in (host.architecture(), host.other_architecture()))
    both = ("--platform", here, "--platform", there)

    warmed = caches.cachectl("warm", *texts, *both, "--json")
    everything = caches.cachectl("warm", *texts, "--platform", "all")
    found = {}
    with upstream.away():
        for name, platforms in {"one": ("--platform", there), "two": both}.items():
            archive = tmp_path / f"{name}.tar.zst"
            exported = caches.cachectl("export", archive, *platforms)
            imported = other.cachectl("import", archive, "--json")
            assert (exported.code, imported.code) == (OK, OK)
            assert f"left out {there} of {HUB}/{single.name}: not available for" in exported.err
            assert f"left out {HUB}/{single.name}" not in exported.err
            found[name] = [
                f"{HUB}/{image}" in imported.result[HUB]["images"] for image in texts
            ] + [
                other.cachectl("verify", index.name, "--platform", one).code == OK
                for one in (here, there)
            ]
        proved = caches.cachectl("verify", index.name, *both)
        unknown = caches.cachectl("verify", index.name, "--platform", "amd64")

    assert (warmed.code, everything.code) == (NOT_ALL_THERE, OK)
    assert [one["errors"] for one in warmed.result] == [
        [],
        [f"not available for {there}; available for: {here}"],
    ]
    assert found == {"one": [True, False, False, True], "two": [True] * 4}
    assert proved.code == OK
    assert f"1 of 1 images proved for {here}, {there}" in proved.err
    assert unknown.code == USAGE
    assert "'amd64' is not a platform; allowed: OS/ARCHITECTURE" in unknown.err


def test_a_damaged_archive_is_refused_and_changes_nothing(
    caches: Caches, other: Caches, upstream: Upstream, tmp_path: Path
) -> None:
    caches.cachectl("warm", upstream.push_index().name)
    archive = tmp_path / "caches.tar.zst"
    caches.cachectl("export", archive)
    content = archive.read_bytes()
    plain = zstandard.ZstdDecompressor().decompressobj().decompress(content)
    before = _held(other)

    # Of the tar, the middle is in a layer, which is checked as it is written.
    for damaged in (_with_a_changed_byte(content), content[:-1], _with_a_changed_byte(plain)):
        archive.write_bytes(damaged)
        ended = other.cachectl("import", archive)
        assert ended.code == FAILED
        assert f"{archive} was not imported" in ended.err
        assert _held(other) == before


def _with_a_changed_byte(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def test_a_layout_with_a_short_name_is_imported_under_a_full_one(
    caches: Caches, upstream: Upstream, tmp_path: Path
) -> None:
    manifest, blobs = layouts.image(b"a layer", architecture=host.architecture())
    layout = layouts.files(blobs, (manifest, {REF_NAME: "v3"}))
    (tmp_path / "layout.tar").write_bytes(layouts.tar(layout))
    name = f"{QUAY}/prometheus/prometheus:v3"

    unnamed = caches.cachectl("import", tmp_path / "layout.tar")
    nowhere = caches.cachectl("import", tmp_path / "layout.tar", "nowhere.example/app:v3")
    imported = caches.cachectl("import", tmp_path / "layout.tar", name, "--json")
    with upstream.away():
        proved = caches.cachectl("verify", name, "--json")

    assert (unnamed.code, nowhere.code) == (USAGE, USAGE)
    assert "v3 (sha256:" in unnamed.err
    assert imported.result[QUAY]["images"] == [name]
    assert (proved.code, proved.result[0]["digest"]) == (OK, layouts.digest(manifest))


def test_a_damaged_cache_is_not_exported(
    caches: Caches, upstream: Upstream, tmp_path: Path
) -> None:
    image, layer = _push(upstream)
    caches.cachectl("warm", image)
    stored.damage(caches.containers[HUB], layer)

    ended = caches.cachectl("export", tmp_path / "caches.tar.zst")
    caches.cachectl("scrub", "--repair")

    assert ended.code == FAILED
    assert "cachectl scrub --repair" in ended.err
    assert list(tmp_path.iterdir()) == []


def test_images_of_a_cluster_are_those_that_talosctl_lists(
    caches: Caches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    talosctl = versions.find("talosctl-1.13")
    (tmp_path / "talosctl").symlink_to(talosctl.path)
    monkeypatch.setitem(caches.cachectl.env, "PATH", f"{tmp_path}:{os.environ['PATH']}")

    proof = caches.cachectl("verify", "--talos-version", "1.13", "--json")
    other_version = caches.cachectl("verify", "--talos-version", "1.2")

    assert proof.code == NOT_ALL_THERE
    assert [image["image"] for image in proof.result] == list(
        of_cluster(talosctl, talosctl.version)
    )
    assert other_version.code == USAGE
    assert "put talosctl 1.2 first on PATH" in other_version.err


@pytest.mark.modern_engine
def test_status_tells_what_the_caches_are_and_what_they_saved(
    caches: Caches, upstream: Upstream
) -> None:
    image = upstream.push_index()
    endpoint = caches.stack.outputs()["caches"][HUB]["endpoint"]
    before = caches.cachectl("status", "--json").result[HUB]
    caches.cachectl("warm", image.name)
    warm = caches.cachectl("status", "--json").result[HUB]
    docker_cli.pull(endpoint, image)
    with upstream.away():
        pulled = caches.cachectl("status", "--json")
        table = caches.cachectl("status")
    after = pulled.result[HUB]

    assert (pulled.code, table.code) == (OK, OK)
    assert (warm["reachable"], after["reachable"]) == (True, False)
    assert (after["health"], after["endpoint"], after["upstream"]) == (
        "healthy",
        endpoint,
        upstream.url,
    )
    assert after["stored"]["tags"] == before["stored"]["tags"] + 1
    assert warm["stored"]["size"] - before["stored"]["size"] > 5_000_000
    fetched, served, idle = (
        [now["stored"]["metrics"][name] - then["stored"]["metrics"][name] for name in _COUNTED]
        for now, then in ((warm, before), (after, warm), (after, after))
    )
    assert fetched[0] > 5_000_000
    assert served[0] < 10_000
    assert served[1] > 5_000_000
    assert served[2] >= 4
    assert idle == [0, 0, 0]
    [row] = [line.split() for line in table.out.splitlines() if line.split()[:1] == [HUB]]
    tags = str(after["stored"]["tags"])
    assert row[1:7] == ["healthy", endpoint, "reach", "it", "unreachable", tags]


_COUNTED = ("from_upstream", "to_clients", "hits")


def test_status_names_a_cache_that_does_not_run(caches: Caches) -> None:
    container = caches.containers[QUAY]
    container.stop(timeout=5)
    try:
        ended = caches.cachectl("status", "--json")
    finally:
        container.start()

    assert ended.code == NOT_ALL_THERE
    assert ended.result[QUAY]["health"] == "exited"
    assert ended.result[QUAY]["stored"] is None
    assert ended.result[HUB]["health"] == "healthy"


def test_logs_show_pulls_of_one_upstream_or_all(caches: Caches, upstream: Upstream) -> None:
    image = upstream.push_index().name
    caches.cachectl("warm", image)
    caches.cachectl("warm", f"{QUAY}/{image}")

    of_all = caches.cachectl("logs", "--tail", "50")
    of_one = caches.cachectl("logs", QUAY, "--tail", "50")
    of_none = caches.cachectl("logs", "nowhere.example")

    path = f"/v2/{image.partition(':')[0]}/manifests/1"
    assert {f"{HUB}:", f"{QUAY}:"} == {
        line.split()[0] for line in of_all.out.splitlines() if path in line
    }
    assert path in of_one.out
    assert "127.0.0.1" not in of_one.out
    assert of_none.code == USAGE
    assert f"it has caches for: {HUB}, {QUAY}" in of_none.err


def test_logs_are_followed_until_ctrl_c(caches: Caches, upstream: Upstream) -> None:
    image = upstream.push_index().name
    process = caches.cachectl.start("logs", "--follow", "--tail", "0")
    assert process.stdout is not None
    path = image.partition(":")[0]
    endpoint = caches.stack.outputs()["caches"][HUB]["endpoint"]
    # Until it follows, which nothing tells.
    with pulling(lambda: requests.head(f"{endpoint}/v2/{path}/manifests/1", timeout=60)):
        line = next(line for line in process.stdout if path in line)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=PATIENCE * 20)

    assert line.startswith(f"{HUB}: ")
    assert process.returncode == INTERRUPTED
    assert said == "cachectl: interrupted\n"


def test_containerd_pulls_by_the_hosts_files(
    caches: Caches, upstream: Upstream, containerd: Containerd, tmp_path: Path
) -> None:
    image = upstream.push_index()
    for form in ("containerd", "kind"):
        folder = tmp_path / form
        assert caches.cachectl("mirrors", "--format", form, "--output", folder).code == OK
        for registry in REGISTRIES:
            pulled = containerd.pull_by(registry, image, folder / "certs.d")
            assert pulled == image.digest


@pytest.mark.parametrize(
    "other", [("--format", "docker"), ("--format", "k3d"), ("--talos-version", "1.8")]
)
def test_tools_that_cannot_skip_the_fallback_are_named(
    caches: Caches, other: tuple[str, str]
) -> None:
    refused = caches.cachectl("mirrors", "--skip-fallback", *other)

    assert refused.code == USAGE
    assert "--skip-fallback" in refused.err
    assert "allowed: " in refused.err


def test_kind_mounts_the_folder_that_was_written(caches: Caches, tmp_path: Path) -> None:
    refused = caches.cachectl("mirrors", "--format", "kind")
    caches.cachectl("mirrors", "--format", "kind", "--output", tmp_path)

    assert refused.code == USAGE
    config = yaml.safe_load((tmp_path / "kind.yaml").read_text())
    [mount] = config["nodes"][0]["extraMounts"]
    assert {path.name for path in Path(mount["hostPath"]).iterdir()} == set(REGISTRIES)


@pytest.mark.modern_engine
@pytest.mark.skipif(
    bool(private_engine.why_impossible()), reason=private_engine.why_impossible() or "possible"
)
def test_docker_takes_the_daemon_json(
    caches: Caches, tmp_path_factory: pytest.TempPathFactory
) -> None:
    printed = caches.cachectl("mirrors", "--format", "docker")
    folder = tmp_path_factory.mktemp("engine")
    config = tmp_path_factory.mktemp("config") / "daemon.json"
    config.write_text(printed.out)
    with (
        private_engine.running(folder, ("--config-file", config)) as engine,
        engine.client() as client,
    ):
        taken = client.info()["RegistryConfig"]

    mirror = caches.stack.outputs()["mirrors"][HUB]
    assert taken["Mirrors"] == [f"{mirror}/"]
    assert taken["IndexConfigs"][mirror.removeprefix("http://")]["Secure"] is False


def test_what_no_list_names_is_pruned_and_its_content_freed(
    caches: Caches, upstream: Upstream, tmp_path: Path
) -> None:
    kept, dropped = (upstream.push_index().name for _ in range(2))
    caches.cachectl("warm", kept, dropped, f"{QUAY}/{dropped}")
    (tmp_path / "keep.txt").write_text(f"# what stays\n{kept}\n{QUAY}/{dropped}\n")
    prune = ("prune", "--keep", tmp_path / "keep.txt", "--json")

    before = _held(caches)
    shown = caches.cachectl(*prune)
    untouched = _held(caches)
    pruned = caches.cachectl(*prune, "--yes")
    again = caches.cachectl(*prune, "--yes")
    with upstream.away():
        proved = caches.cachectl("verify", kept, dropped, f"{QUAY}/{dropped}", "--json")

    assert (shown.code, pruned.code, again.code) == (OK, OK, OK)
    assert untouched == before
    assert shown.result == pruned.result
    assert dropped in [image["image"] for image in pruned.result[HUB]["images"]]
    assert kept not in [image["image"] for image in pruned.result[HUB]["images"]]
    assert pruned.result[HUB]["freed"] > 5_000_000
    assert again.result == {
        registry: {"images": [], "blobs": [], "freed": 0, "uploads": []} for registry in REGISTRIES
    }
    assert [image["proved"] for image in proved.result] == [True, False, True]
    stored = caches.cachectl("status", "--json").result
    assert [stored[registry]["stored"]["tags"] for registry in REGISTRIES] == [1, 1]
    assert caches.cachectl("scrub").code == OK
    warmed = caches.cachectl("warm", dropped, "--json")
    assert warmed.code == OK
    assert warmed.result[0]["fetched"] > 5_000_000


@pytest.mark.modern_engine
def test_prune_by_age_and_size_spares_what_a_list_names(
    caches: Caches, upstream: Upstream, tmp_path: Path
) -> None:
    old, named, new = (upstream.push_index().name for _ in range(3))
    (tmp_path / "keep.txt").write_text(named)
    for image in (named, old):
        caches.cachectl("warm", image)
    time.sleep(1.1)
    caches.cachectl("warm", new)

    young = caches.cachectl("prune", "--older-than", "1h", "--json")
    sized = caches.cachectl(
        "prune", "-u", HUB, "--size", "11m", "--keep", tmp_path / "keep.txt", "--json", "--yes"
    )
    left = caches.cachectl("verify", old, named, new, "--json")
    aged = caches.cachectl("prune", "-u", HUB, "--older-than", "0s", "--yes", "--json")

    assert [one["images"] for one in young.result.values()] == [[], []]
    assert old in [image["image"] for image in sized.result[HUB]["images"]]
    assert [image["proved"] for image in left.result] == [False, True, True]
    assert {image["image"] for image in aged.result[HUB]["images"]} == {named, new}
    assert caches.cachectl("status", "--json").result[HUB]["stored"]["tags"] == 0


def _held(caches: Caches) -> set[str]:
    """All files of the caches' storages, with the sum of what they hold."""
    command = "busybox find /var/lib/registry -type f -exec busybox sha256sum {} +"
    return {
        line
        for container in caches.containers.values()
        for line in str(container.exec_run(["sh", "-c", command]).output).split("\\n")
    }
