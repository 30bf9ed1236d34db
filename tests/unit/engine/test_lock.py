"""A lock excludes the other processes of a machine, whichever user they belong to."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from talos_registry_cache.engine import lock
from talos_registry_cache.engine.lock import LockError, held

ROOT = Path(__file__).resolve().parents[3]
HOLD = """\
import sys
from pathlib import Path
from talos_registry_cache.engine import lock

class Engine:
    def info(self):
        return {"Name": sys.argv[2], "DockerRootDir": "/var/lib/docker"}

lock.FOLDER = Path(sys.argv[1])
with lock.held(Engine(), "dev", lambda: print("waits", flush=True)):
    print("holds", flush=True)
    sys.stdin.readline()
"""


class Engine:
    """An engine with a name."""

    def __init__(self, name: str = "here") -> None:
        self.name = name

    def info(self) -> dict[str, str]:
        # Podman makes up another ID each time.
        return {"ID": os.urandom(4).hex(), "Name": self.name, "DockerRootDir": "/var/lib/docker"}


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder like /tmp, in which users can remove only their own files."""
    # Other users cannot enter the folders that pytest creates.
    with tempfile.TemporaryDirectory() as made:
        Path(made).chmod(0o1777)
        monkeypatch.setattr(lock, "FOLDER", Path(made))
        yield Path(made)


@contextmanager
def other(folder: Path, engine: str = "here", **settings: Any) -> Iterator["subprocess.Popen[str]"]:
    """Another process that holds the lock until it reads a line, with another home folder."""
    environment = {
        "PYTHONPATH": str(ROOT), "HOME": "/nonexistent", "XDG_CACHE_HOME": "/nonexistent"
    }  # fmt: skip
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, folder, engine],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        **settings,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def said(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def end(process: "subprocess.Popen[str]") -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.close()
    assert process.wait(10) == 0


def engine(name: str = "here") -> Any:
    return Engine(name)


def test_processes_wait_for_each_other_whatever_their_home_folder(folder: Path) -> None:
    with held(engine(), "dev"), other(folder) as process:
        assert said(process) == "waits"
    with other(folder) as second:
        assert said(second) == "holds"
        with other(folder) as third:
            assert said(third) == "waits"
            end(second)
            assert said(third) == "holds"
            end(third)
    assert list(folder.iterdir()) == []


def test_a_killed_process_holds_no_lock(folder: Path) -> None:
    with other(folder) as process:
        assert said(process) == "holds"
        process.kill()
        process.wait(10)
        waited: list[None] = []
        with held(engine(), "dev", lambda: waited.append(None)):
            assert waited == []


@pytest.mark.parametrize(("where", "name"), [("elsewhere", "dev"), ("here", "other")])
def test_another_engine_or_stack_has_another_lock(folder: Path, where: str, name: str) -> None:
    with held(engine(), "dev"), held(engine(where), name, pytest.fail):
        assert len(list(folder.iterdir())) == 2


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_users_wait_for_each_other(folder: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        with held(engine(), "dev"), other(folder, user=65534, group=65534) as process:
            assert said(process) == "waits"
        with other(folder, user=65534, group=65534, umask=mask) as process:
            assert said(process) == "holds"
            with other(folder) as mine:
                assert said(mine) == "waits"
                end(process)
                assert said(mine) == "holds"
    finally:
        os.umask(before)


def test_only_a_regular_file_is_locked(folder: Path, tmp_path: Path) -> None:
    with held(engine(), "dev"):
        [path] = folder.iterdir()
    target = tmp_path / "target"
    target.touch()

    def link(place: Path) -> None:
        place.symlink_to(target)

    for make in (Path.mkdir, link, os.mkfifo):
        make(path)
        with (
            pytest.raises(LockError, match=f"cannot lock {path}.*remove it"),
            held(engine(), "dev"),
        ):
            pass
        path.rmdir() if path.is_dir() else path.unlink()
    assert target.exists()
