"""The pictures that a terminal showed, from what commands printed into it."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import pyte
from pyte.screens import Char

from benchmarks.support.terminal import Printed, Size

PROMPT = b"\x1b[32m$\x1b[0m "
NEW_LINE = b"\r\n"
TYPED_AT_ONCE = 6
TYPING_S = 0.1
AFTER_TYPING_S = 0.4
# No picture is shorter.
SHORTEST_S = 0.2
# No picture is longer, apart from the last one of a command.
LONGEST_S = 0.6


@dataclass(frozen=True, slots=True)
class Take:
    """A command and what it printed.

    Attributes:
        typed: the command, as it is typed.
        printed: what it printed.
        within_s: how long its output is played at most; it is played faster if it took longer.
        hold_s: for how long its end is shown after that.
    """

    typed: str
    printed: Sequence[Printed]
    within_s: float = 5.0
    hold_s: float = 1.5


@dataclass(frozen=True, slots=True)
class Style:
    """How text looks.

    Attributes:
        colour: "default", the name of one of the 16 colours as in pyte, or six hexadecimal digits.
        is_bold, is_underlined: whether it is.
    """

    colour: str = "default"
    is_bold: bool = False
    is_underlined: bool = False


@dataclass(frozen=True, slots=True)
class Span:
    """Text of one style, without spaces at its ends."""

    column: int
    text: str
    style: Style


Line = tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class Frame:
    """A picture.

    Attributes:
        lines: what is in each row.
        cursor: the column and row of the cursor; None while it is hidden.
        seconds: how long it is shown.
    """

    lines: tuple[Line, ...]
    cursor: tuple[int, int] | None
    seconds: float


def play(takes: Iterable[Take], size: Size) -> Sequence[Frame]:
    """The pictures of commands that are typed one after another into the same terminal."""
    terminal = _Terminal(size)
    frames: list[Frame] = []
    for take in takes:
        frames += terminal.type(take.typed)
        frames += _shortened(_paced(terminal.print(take)))
        frames[-1] = replace(frames[-1], seconds=take.hold_s)
    return frames


class _Terminal:
    def __init__(self, size: Size) -> None:
        self._screen = pyte.Screen(size.columns, size.rows)
        self._stream = pyte.ByteStream(self._screen)
        self._stream.feed(PROMPT)

    def type(self, command: str) -> Iterator[Frame]:
        for start in range(0, len(command), TYPED_AT_ONCE):
            self._stream.feed(command[start : start + TYPED_AT_ONCE].encode())
            yield self._frame(TYPING_S)
        yield self._frame(AFTER_TYPING_S)
        self._stream.feed(NEW_LINE)

    def print(self, take: Take) -> Iterator[Frame]:
        """A picture before each thing that the command printed, and of its end, with a prompt."""
        times = [one.at_s for one in take.printed]
        speed = max(1.0, times[-1] / take.within_s) if times else 1.0
        lasted = (end - start for start, end in zip([0.0, *times], times, strict=False))
        for one, seconds in zip(take.printed, lasted, strict=True):
            yield self._frame(seconds / speed)
            self._stream.feed(one.content)
        if self._screen.cursor.x:
            self._stream.feed(NEW_LINE)
        self._stream.feed(PROMPT)
        yield self._frame(SHORTEST_S)

    def _frame(self, seconds: float) -> Frame:
        cursor = self._screen.cursor
        lines = tuple(self._line(row) for row in range(self._screen.lines))
        return Frame(lines, None if cursor.hidden else (cursor.x, cursor.y), seconds)

    def _line(self, row: int) -> Line:
        cells = self._screen.buffer[row]
        return tuple(_spans([cells[column] for column in range(self._screen.columns)]))


def _spans(cells: Sequence[Char]) -> Iterator[Span]:
    """The text of a row, split where its style changes."""
    text = "".join(cell.data[:1] or " " for cell in cells).rstrip()
    start = len(text) - len(text.lstrip())
    styles: list[Style] = []
    for at in range(start, len(text)):
        # A space looks like what is before it.
        styles.append(styles[-1] if text[at] == " " else _style(cells[at]))
    for style, group in groupby(styles):
        end = start + len(list(group))
        yield Span(start, text[start:end].rstrip(), style)
        start = end


def _style(cell: Char) -> Style:
    return Style(cell.fg, cell.bold, cell.underscore)


def _paced(frames: Iterable[Frame]) -> Iterator[Frame]:
    """Leave out pictures that are too short to be seen, and join equal ones."""
    last: Frame | None = None
    for frame in frames:
        if last is None:
            last = frame
        elif _is_same(last, frame):
            last = replace(last, seconds=last.seconds + frame.seconds)
        elif last.seconds < SHORTEST_S:
            last = replace(frame, seconds=last.seconds + frame.seconds)
        else:
            yield last
            last = frame
    if last:
        yield last


def _shortened(frames: Iterable[Frame]) -> Iterator[Frame]:
    return (replace(frame, seconds=min(frame.seconds, LONGEST_S)) for frame in frames)


def _is_same(one: Frame, other: Frame) -> bool:
    return (one.lines, one.cursor) == (other.lines, other.cursor)
