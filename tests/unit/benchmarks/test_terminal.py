import sys
from pathlib import Path
from time import monotonic, sleep

import pytest

from benchmarks.support import terminal
from benchmarks.support.session import CannotRunError
from benchmarks.support.terminal import Size

SIZE = Size(61, 7)
UNTIL_CTRL_C = "trap 'echo interrupted; exit 0' INT; echo started; while :; do sleep 0.05; done"


def printed(*command: str, cwd: Path | None = None) -> str:
    return "".join(one.content.decode() for one in terminal.run(command, SIZE, cwd=cwd))


def test_a_command_sees_a_terminal_of_the_size(tmp_path: Path) -> None:
    script = "import os; print(*os.get_terminal_size(), os.environ['TERM'], os.getcwd())"

    text = printed(sys.executable, "-c", script, cwd=tmp_path)

    assert text == f"61 7 xterm-256color {tmp_path}\r\n"


def test_the_environment_cannot_deny_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    monkeypatch.setenv("COLUMNS", "80")

    assert printed("sh", "-c", "echo ${CI-none} ${COLUMNS-none}") == "none none\r\n"


def test_what_is_printed_later_has_a_later_time() -> None:
    one, *_, other = terminal.run(["sh", "-c", "echo one; sleep 0.2; echo other"], SIZE)

    assert (one.content, other.content) == (b"one\r\n", b"other\r\n")
    assert other.at_s - one.at_s >= 0.1


def test_a_failed_command_is_an_error_with_its_output() -> None:
    with pytest.raises(CannotRunError, match="sh -c echo broken; exit 3 failed:\nbroken"):
        printed("sh", "-c", "echo broken; exit 3")


def test_ctrl_c_is_pressed_once_the_other_work_is_done() -> None:
    done: list[str] = []

    def work() -> None:
        sleep(0.1)
        done.append("work")

    shown = terminal.run(["sh", "-c", UNTIL_CTRL_C], SIZE, meanwhile=work)

    text = b"".join(one.content for one in shown).decode()
    assert text.startswith("started\r\n")
    assert "interrupted" in text
    assert done == ["work"]


def test_an_error_of_the_other_work_is_raised() -> None:
    def work() -> None:
        raise CannotRunError("no nodes")

    with pytest.raises(CannotRunError, match="no nodes"):
        terminal.run(["sh", "-c", UNTIL_CTRL_C], SIZE, meanwhile=work)


def test_an_interrupt_ends_the_command_even_if_a_child_keeps_the_terminal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(terminal, "Printed", interrupted)
    # The child ignores Ctrl-C.
    script = f"(trap '' INT; sleep 30) & {UNTIL_CTRL_C}"
    started = monotonic()

    with pytest.raises(KeyboardInterrupt):
        terminal.run(["sh", "-c", script], SIZE)

    assert monotonic() - started < 20
