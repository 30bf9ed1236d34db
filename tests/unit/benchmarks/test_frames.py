from collections.abc import Iterable

import pytest

from benchmarks.support import frames
from benchmarks.support.frames import Frame, Span, Style, Take, play
from benchmarks.support.terminal import Printed, Size

SIZE = Size(30, 5)


def take(*printed: tuple[float, str], within_s: float = 100.0) -> Take:
    """A command without letters, so that its output is all there is to see."""
    chunks = [Printed(at, text.encode()) for at, text in printed]
    return Take("", chunks, within_s, hold_s=9.0)


def texts(frame: Frame) -> list[str]:
    return [" ".join(span.text for span in line) for line in frame.lines if line]


def shown(takes: Iterable[Take]) -> list[list[str]]:
    return [texts(frame) for frame in play(takes, SIZE)]


def test_a_command_is_typed_after_a_prompt_and_before_its_output() -> None:
    pictures = shown([Take("cachectl status", [Printed(1.0, b"healthy\r\n")])])

    assert pictures[:3] == [["$ cachec"], ["$ cachectl sta"], ["$ cachectl status"]]
    assert pictures[-1] == ["$ cachectl status", "healthy", "$"]


def test_commands_follow_each_other_in_the_same_terminal() -> None:
    takes = [Take("one", [Printed(1.0, b"1")]), Take("two", [Printed(1.0, b"2\r\n")])]

    # The first does not end its line.
    assert shown(takes)[-1] == ["$ one", "1", "$ two", "2", "$"]


def test_the_screen_is_what_escape_sequences_make_of_it() -> None:
    pictures = shown([take((1.0, "creating\r\n"), (2.0, "\x1b[1A\x1b[2Kcreated\r\n"))])

    assert ["$", "creating"] in pictures
    assert pictures[-1] == ["$", "created", "$"]


def test_rows_above_the_screen_are_gone() -> None:
    lines = "\r\n".join(map(str, range(10)))

    assert shown([take((1.0, f"{lines}\r\n"))])[-1] == ["6", "7", "8", "9", "$"]


def test_text_is_split_where_its_style_changes() -> None:
    line = "  plain  \x1b[1;32mbold green\x1b[0m \x1b[4;38;5;197mline"

    frame = play([take((1.0, line))], SIZE)[-1]

    assert frame.lines[1] == (
        Span(2, "plain", Style()),
        Span(9, "bold green", Style("green", is_bold=True)),
        Span(20, "line", Style("ff005f", is_underlined=True)),
    )


def test_the_cursor_is_shown_unless_it_is_hidden() -> None:
    hidden = take((1.0, "hidden\x1b[?25l"), (2.0, "\x1b[?25hshown"))

    pictures = play([hidden], SIZE)

    assert [frame.cursor for frame in pictures if texts(frame)[-1] == "hidden"] == [None]
    assert pictures[-1].cursor == (2, 2)


def test_no_picture_of_output_is_too_short_to_be_seen_and_no_time_is_lost() -> None:
    quick = [(1.0 + number / 100, f"{number}\r") for number in range(100)]

    pictures = play([take(*quick)], SIZE)[1:]

    assert len(pictures) < 10
    assert all(frame.seconds >= frames.SHORTEST_S for frame in pictures)
    assert sum(frame.seconds for frame in pictures[1:-1]) == pytest.approx(1.0, abs=0.25)


def test_waiting_is_shortened_also_if_the_same_is_printed_again() -> None:
    waiting = take((1.0, "dot"), (30.0, "\rdot"), (60.0, "\rend"))

    (seconds,) = (frame.seconds for frame in play([waiting], SIZE) if texts(frame)[-1] == "dot")

    assert seconds == frames.LONGEST_S


def test_output_that_took_longer_than_its_time_is_played_faster_and_its_end_is_held() -> None:
    slow = take((1.0, "one"), (2.0, "\rtwo"), within_s=0.5)

    pictures = play([slow], SIZE)

    assert [frame.seconds for frame in pictures if texts(frame)[-1] == "one"] == [0.25]
    assert pictures[-1].seconds == 9.0


def test_output_is_never_played_slower() -> None:
    quick = take((0.25, "one"), (0.5, "\rtwo"), within_s=5.0)

    assert [frame.seconds for frame in play([quick], SIZE)[-2:]] == [0.25, 9.0]


def test_a_command_may_print_nothing() -> None:
    assert shown([Take("true", [])])[-1] == ["$ true", "$"]
