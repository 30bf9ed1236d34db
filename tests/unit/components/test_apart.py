import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from components import apart
from components.apart import CancelledError

ROOT = Path(__file__).resolve().parents[3]
WITHIN_S = 60.0


class MistakeError(Exception):
    """An error of the work."""


class AwkwardError(Exception):
    """An error that cannot be pickled, because its constructor needs two arguments."""

    def __init__(self, one: str, other: str) -> None:
        super().__init__(f"{one} {other}")


@pytest.fixture(autouse=True)
def _not_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apart, "_cancelled", threading.Event())


# Work that runs in a process of its own


def answer(question: str) -> tuple[str, int]:
    print(f"asked: {question}", flush=True)  # noqa: T201 - as work does
    print("answered", flush=True)  # noqa: T201 - as work does
    return f"{question}!", os.getpid()


def fail() -> None:
    raise MistakeError("wrong")


def fail_awkwardly() -> None:
    raise AwkwardError("quite", "wrong")


def hang(folder: Path) -> None:
    """Write `clean` after an interrupt, and take a moment for it."""
    (folder / "started").touch()
    try:
        time.sleep(WITHIN_S)
    finally:
        time.sleep(0.2)
        (folder / "clean").touch()


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not path.exists():
        assert time.monotonic() < deadline, path
        time.sleep(0.01)


# The tests


def test_work_runs_in_another_process_and_what_it_prints_is_printed_here(
    capsys: pytest.CaptureFixture[str],
) -> None:
    said, process = apart.run(answer, "why")

    assert said == "why!"
    assert process != os.getpid()
    assert capsys.readouterr().out == "asked: why\nanswered\n"


def test_an_error_is_raised_here_with_its_own_traceback() -> None:
    with pytest.raises(MistakeError, match="wrong") as raised:
        apart.run(fail)
    assert "in fail" in raised.value.__notes__[0]

    with pytest.raises(RuntimeError, match=r"in fail_awkwardly(?s:.*)quite wrong"):
        apart.run(fail_awkwardly)


def test_cancelling_interrupts_running_and_later_work(tmp_path: Path) -> None:
    def cancel() -> None:
        wait_for(tmp_path / "started")
        apart.cancel()
        apart.cancel()

    thread = threading.Thread(target=cancel)
    thread.start()
    with pytest.raises(CancelledError, match="interrupted"):
        apart.run(hang, tmp_path)
    assert (tmp_path / "clean").exists()
    thread.join()

    with pytest.raises(CancelledError):
        apart.run(time.sleep, WITHIN_S)


def test_work_whose_process_was_killed_is_an_error() -> None:
    with pytest.raises(CancelledError, match="was killed"):
        apart.run(die)


PROVIDER = """
import sys
from pathlib import Path
from components import apart
from tests.unit.components.test_apart import hang
apart.run(hang, Path(sys.argv[1]))
"""


@pytest.mark.parametrize("ends", ["provider", "pulumi"])
def test_work_is_interrupted_when_the_provider_or_pulumi_ends(tmp_path: Path, ends: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PROVIDER, str(tmp_path)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as provider:
        wait_for(tmp_path / "started")
        if ends == "provider":
            provider.kill()
        else:
            assert provider.stdin is not None
            provider.stdin.close()
        wait_for(tmp_path / "clean")
