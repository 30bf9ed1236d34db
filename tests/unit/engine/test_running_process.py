"""Identifiers tell whether a process still runs."""

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
    """A process, and its identifier."""
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


def test_a_killed_process_has_ended_even_as_a_zombie() -> None:
    with living() as (process, name):
        assert name.split()[:2] == [running_process.own().split()[0], str(process.pid)]
        assert running_process.lives(name) is True
        process.kill()
        # It stays a zombie until its parent waits for it.
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert running_process.lives(name) is False
        process.wait(10)
        assert running_process.lives(name) is False


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_the_process_of_another_user_runs() -> None:
    with living(user=65534) as (_, name):
        assert running_process.lives(name) is True


def test_a_later_process_with_the_same_id_is_another_one() -> None:
    own = running_process.own()

    assert running_process.lives(own) is True
    assert running_process.lives(f"{own}0") is False


@pytest.mark.parametrize("name", ["", "elsewhere 1 now", "elsewhere", "{} all now", "{} -1 now"])
def test_the_state_of_an_unknown_process_is_unknown(name: str) -> None:
    assert running_process.lives(name.format(running_process.own().split()[0])) is None


def test_ps_is_used_on_systems_without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "talos_registry_cache.engine.running_process.platform.system", lambda: "Darwin"
    )
    running_process._identifier.cache_clear()
    try:
        own = running_process.own()
        assert running_process.lives(own) is True
        assert own.split()[2].count("-") == 4
        assert running_process.lives(f"{own}-later") is False
    finally:
        running_process._identifier.cache_clear()
