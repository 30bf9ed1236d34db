"""Export and import with a full disk, a malicious archive, or when they are killed."""

import fcntl
import hashlib
import json
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import zstandard
from docker import DockerClient
from docker.models.containers import Container

from talos_registry_cache.cli.tar_stream import END, header, padding
from tests.integration.support import belongings, host, images
from tests.integration.support.cachectl import Cachectl, Ended
from tests.integration.support.polling import eventually, under_load
from tests.integration.support.processes import run
from tests.integration.support.stack import CacheStack, stack, upstreams
from tests.integration.support.upstream import Upstream
from tests.support import layouts

HUB = "docker.io"
OK, FAILED = range(2)
INTERRUPTED = 130
ROOM = 110 << 20
LARGE = 60_000_000
STAGING = ".cachectl-import"
ENDS_WITHIN_S = 2.0


@dataclass(frozen=True, slots=True)
class Cache:
    """A cache of a stack that is up, and cachectl for it."""

    stack: CacheStack
    cachectl: Cachectl
    container: Container

    def held(self) -> set[str]:
        """All files of its storage with their checksums."""
        command = "busybox find . -type f -exec busybox sha256sum {} +"
        _, said = self.container.exec_run(["sh", "-c", command], workdir="/var/lib/registry")
        return set(said.decode().splitlines()) if isinstance(said, bytes) else set()

    def has_staging(self) -> bool:
        """Whether its volume has a staging folder."""
        path = f"/var/lib/registry/{STAGING}"
        return self.container.exec_run(["busybox", "test", "-e", path]).exit_code == 0


@contextmanager
def _up(
    folder: Path, engine: DockerClient, upstream: Upstream, *, room: int = 0
) -> Iterator[Cache]:
    with stack(folder, engine, {"upstreams": upstreams(upstream.url, HUB)}) as made:
        if room:
            # In memory, while a container uses it.
            options = {"type": "tmpfs", "device": "tmpfs", "o": f"size={room}"}
            engine.volumes.create(f"registry-{made.name}-{HUB}", driver_opts=options)
        made.up()
        [container] = belongings.registries(engine, made.name).values()
        yield Cache(made, Cachectl(made.name, folder), container)


@pytest.fixture(scope="module")
def full(
    tmp_path_factory: pytest.TempPathFactory, engine: DockerClient, upstream: Upstream
) -> Iterator[Cache]:
    """A cache with a large image."""
    with _up(tmp_path_factory.mktemp("full"), engine, upstream) as cache:
        large = images.oci_index(host.architecture(), sizes=(LARGE,))
        assert cache.cachectl("warm", upstream.push(large).name).code == OK
        yield cache


@pytest.fixture(scope="module")
def small(
    tmp_path_factory: pytest.TempPathFactory, engine: DockerClient, upstream: Upstream
) -> Iterator[Cache]:
    """A cache with a small image in a small volume."""
    with _up(tmp_path_factory.mktemp("small"), engine, upstream, room=ROOM) as cache:
        assert cache.cachectl("warm", upstream.push_index().name).code == OK
        yield cache


@pytest.fixture(scope="module")
def archive(full: Cache, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive of a cache."""
    file = tmp_path_factory.mktemp("archive") / "caches.tar.zst"
    assert full.cachectl("export", file).code == OK
    return file


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk that is too small for an export."""
    folder = tmp_path / "disk"
    folder.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", folder)
    try:
        yield folder
    finally:
        run("umount", folder)


def test_export_to_a_full_disk_fails_and_leaves_no_files(
    full: Cache, small_disk: Path, engine: DockerClient
) -> None:
    ended = full.cachectl("export", small_disk / "caches.tar.zst")

    assert ended.code == FAILED
    assert "No space left on device" in ended.err
    assert list(small_disk.iterdir()) == []
    assert _temporary_containers(full, engine) == []


def test_an_archive_that_does_not_fit_is_refused(small: Cache, archive: Path) -> None:
    _refused(small, archive, "do not fit")


def test_a_small_archive_that_expands_to_a_large_one_is_refused(
    small: Cache, tmp_path: Path
) -> None:
    bomb = _write_bomb(tmp_path / "bomb.tar.zst", 1_500_000_000)
    assert bomb.stat().st_size < 200_000

    _refused(small, bomb, "do not fit")


def _refused(cache: Cache, file: Path, words: str) -> None:
    before = cache.held()

    ended = cache.cachectl("import", file)

    assert ended.code == FAILED
    assert f"{file} was not imported" in ended.err
    assert words in ended.err
    assert cache.held() == before
    assert not cache.has_staging()


def _write_bomb(file: Path, size: int) -> Path:
    """A small layout of an image whose layer is large."""
    piece = bytes(1 << 20)
    pieces = [piece] * (size // len(piece))
    hashed = hashlib.sha256()
    for one in pieces:
        hashed.update(one)
    manifest, blobs = layouts.image(b"")
    layer = layouts.descriptor(b"") | {"size": len(piece) * len(pieces)}
    was, layer["digest"] = layouts.descriptor(b""), f"sha256:{hashed.hexdigest()}"
    changed = manifest.replace(json.dumps(was).encode(), json.dumps(layer).encode())
    blobs[layouts.digest(changed)] = changed
    layout = layouts.files(blobs, (changed, layouts.names(f"{HUB}/team/bomb:1")))
    with file.open("wb") as raw, zstandard.ZstdCompressor().stream_writer(raw) as target:
        for name, content in layout.items():
            target.write(header(name, len(content)) + content + padding(len(content)))
        target.write(header(f"blobs/sha256/{hashed.hexdigest()}", len(piece) * len(pieces)))
        for one in pieces:
            target.write(one)
        target.write(END)
    return file


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive whose import takes a while."""
    return _write_bomb(tmp_path_factory.mktemp("slow") / "slow.tar.zst", 700_000_000)


@contextmanager
def _half_imported(cache: Cache, archive: Path) -> Iterator[subprocess.Popen[str]]:
    """An import that is halted while it writes to the staging folder."""
    process = cache.cachectl.start("import", archive)
    try:
        eventually(cache.has_staging, within_s=60, what="something is staged", every_s=0.01)
        process.send_signal(signal.SIGSTOP)
        assert process.poll() is None
        yield process
    finally:
        process.kill()
        process.communicate(timeout=30)


@pytest.mark.parametrize("command", [("verify",), ("scrub",), ("prune", "--uploads")])
def test_the_next_command_removes_the_staging_folder_of_a_killed_import(
    full: Cache, slow: Path, command: tuple[str, ...]
) -> None:
    before = full.held()
    with _half_imported(full, slow):
        pass
    assert full.has_staging()

    ended = full.cachectl(*command)

    assert ended.code == OK
    assert f"{HUB}: removed what a killed import had left behind" in ended.err
    assert not full.has_staging()
    assert full.held() == before


def test_up_removes_the_staging_folder_of_a_killed_import_but_not_of_a_running_one(
    full: Cache, slow: Path
) -> None:
    with _half_imported(full, slow) as process:
        full.stack.up()
        assert full.has_staging()
        process.kill()
        process.communicate(timeout=30)

    full.stack.up()

    assert not full.has_staging()


def test_a_terminated_import_exits_at_once_and_leaves_nothing(
    full: Cache, slow: Path, engine: DockerClient
) -> None:
    before = full.held()
    with _half_imported(full, slow) as process:
        ended, within_s = _terminated(process)

    assert ended.code == INTERRUPTED
    assert within_s < under_load(ENDS_WITHIN_S)
    assert not full.has_staging()
    assert full.held() == before
    assert _temporary_containers(full, engine) == []


def test_the_next_export_removes_the_file_of_a_killed_one(full: Cache, tmp_path: Path) -> None:
    process = _begun_export(full, tmp_path)
    process.kill()
    process.communicate(timeout=30)
    assert _partial(tmp_path)
    with (tmp_path / ".cachectl-export-living.partial").open("w") as living:
        fcntl.flock(living, fcntl.LOCK_EX)

        ended = full.cachectl("export", tmp_path / "other.tar.zst")

        assert ended.code == OK
        assert _partial(tmp_path) == [Path(living.name)]


def test_a_terminated_export_exits_at_once_and_leaves_nothing(
    full: Cache, tmp_path: Path, engine: DockerClient
) -> None:
    ended, within_s = _terminated(_begun_export(full, tmp_path))

    assert ended.code == INTERRUPTED
    assert within_s < under_load(ENDS_WITHIN_S)
    assert list(tmp_path.iterdir()) == []
    assert _temporary_containers(full, engine) == []


def _begun_export(cache: Cache, folder: Path) -> subprocess.Popen[str]:
    """Start an export, and wait until it has written some bytes."""
    process = cache.cachectl.start("export", folder / "caches.tar.zst")
    eventually(
        lambda: any(file.stat().st_size for file in _partial(folder)),
        within_s=60,
        what="something is exported",
        every_s=0.001,
    )
    return process


def _partial(folder: Path) -> list[Path]:
    return list(folder.glob(".cachectl-export-*.partial"))


def _terminated(process: subprocess.Popen[str]) -> tuple[Ended, float]:
    """Terminate a process, and return its result and the seconds until it exited."""
    begun = time.monotonic()
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGCONT)
    out, err = process.communicate(timeout=60)
    assert "Traceback" not in err
    return Ended(process.returncode, out, err), time.monotonic() - begun


def _temporary_containers(cache: Cache, engine: DockerClient) -> list[Container]:
    volume = cache.stack.outputs()["caches"][HUB]["storage"]
    label = f"talos-registry-cache.temporary={volume}"
    return engine.containers.list(all=True, filters={"label": label}, ignore_removed=True)
