"""Whether a process goes on that has left something behind."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from talos_registry_cache.engine import running_process

ROOT = Path(__file__).resolve().parents[3]
LIVE = (
    "import sys; from talos_registry_cache.engine import running_process; "
    "print(running_process.own(), flush=True); sys.stdin.read()"
)


@contextmanager
def living(user: int | None = None) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """A process, and what it calls itself."""
    with subprocess.Popen(
        [sys.executable, "-c", LIVE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": str(ROOT)},
        user=user,
    ) as process:
        assert process.stdout is not None
        try:
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


def test_this_process_is_not_gone_and_called_the_same_each_time() -> None:
    assert running_process.own() == running_process.own()
    assert running_process.lives(running_process.own()) is True


def test_a_process_is_gone_when_it_was_killed_and_not_before() -> None:
    with living() as (process, name):
        assert name.split()[:2] == [running_process.own().split()[0], str(process.pid)]
        assert running_process.lives(name) is True
        process.kill()
        # Nobody has asked yet how it ended: it is a zombie.
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert running_process.lives(name) is False
        process.wait(10)
        assert running_process.lives(name) is False


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_another_users_process_is_not_gone() -> None:
    with living(user=65534) as (_, name):
        assert running_process.lives(name) is True


def test_another_process_that_has_got_its_id_is_another_one() -> None:
    machine, number, started = running_process.own().split()

    assert running_process.lives(f"{machine} {number} {started}0") is False


@pytest.mark.parametrize("name", ["", "elsewhere 1 now", "elsewhere", "{} all now", "{} -1 now"])
def test_what_cannot_be_looked_for_may_go_on(name: str) -> None:
    assert running_process.lives(name.format(running_process.own().split()[0])) is None


def test_ps_tells_where_there_is_no_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "talos_registry_cache.engine.running_process.platform.system", lambda: "Darwin"
    )
    running_process._named.cache_clear()
    try:
        own = running_process.own()
        assert running_process.lives(own) is True
        assert own.split()[2].count("-") == 4
        assert running_process.lives(f"{own}-later") is False
    finally:
        running_process._named.cache_clear()
