"""Bar charts as PNG."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

WIDTH = 1560
MARGIN = 50
LABEL_WIDTH = 450
VALUE_WIDTH = 330
BAR_HEIGHT = 44
BAR_GAP = 14
TITLE_SIZE = 40
HEAD_SIZE = 30
TEXT_SIZE = 26
NOTE_SIZE = 22

PAPER = "#ffffff"
INK = "#1f2328"
FAINT = "#59636e"
OURS = "#1a7f37"
OTHERS = "#8c959f"
MARK = "#bc4c00"


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar.

    Attributes:
        label: text on the left.
        value: the length.
        text: text on the right.
        is_ours: whether it is this project's, which selects the colour.
    """

    label: str
    value: float
    text: str
    is_ours: bool = False


@dataclass(frozen=True, slots=True)
class Panel:
    """Bars on one scale.

    Attributes:
        title: the heading.
        bars: the bars.
        mark: a value to mark with a line, or None.
    """

    title: str
    bars: Sequence[Bar]
    mark: float | None = None


def draw(file: Path, title: str, panels: Sequence[Panel], note: str) -> None:
    """Draw panels below each other.

    Args:
        file: the PNG to write.
        title: text above the panels.
        panels: the panels.
        note: lines below the panels.
    """
    height = 2 * MARGIN + TITLE_SIZE + sum(map(_height, panels)) + _lines_height(note)
    image = Image.new("RGB", (WIDTH, height), PAPER)
    pen = ImageDraw.Draw(image)
    pen.text((MARGIN, MARGIN), title, INK, ImageFont.load_default(TITLE_SIZE))
    top = MARGIN + TITLE_SIZE
    for panel in panels:
        _draw_panel(pen, panel, top)
        top += _height(panel)
    pen.multiline_text((MARGIN, top + MARGIN), note, FAINT, ImageFont.load_default(NOTE_SIZE))
    file.parent.mkdir(parents=True, exist_ok=True)
    image.save(file, optimize=True)


def _height(panel: Panel) -> int:
    return MARGIN + HEAD_SIZE + BAR_GAP + len(panel.bars) * (BAR_HEIGHT + BAR_GAP)


def _lines_height(note: str) -> int:
    return MARGIN + len(note.splitlines()) * (NOTE_SIZE + 10)


def _draw_panel(pen: ImageDraw.ImageDraw, panel: Panel, top: int) -> None:
    text = ImageFont.load_default(TEXT_SIZE)
    top += MARGIN
    pen.text((MARGIN, top), panel.title, INK, ImageFont.load_default(HEAD_SIZE))
    top += HEAD_SIZE + BAR_GAP
    left = MARGIN + LABEL_WIDTH
    longest = max(*(bar.value for bar in panel.bars), panel.mark or 0.0) or 1.0
    per_unit = (WIDTH - left - VALUE_WIDTH - MARGIN) / longest
    for number, bar in enumerate(panel.bars):
        upper = top + number * (BAR_HEIGHT + BAR_GAP)
        middle = upper + BAR_HEIGHT / 2
        right = left + max(2.0, bar.value * per_unit)
        colour = OURS if bar.is_ours else OTHERS
        pen.text((left - 20, middle), bar.label, INK, text, anchor="rm")
        pen.rectangle((left, upper, right, upper + BAR_HEIGHT), colour)
        pen.text((right + 16, middle), bar.text, INK, text, anchor="lm")
    if panel.mark is not None:
        at = left + panel.mark * per_unit
        lower = top + len(panel.bars) * (BAR_HEIGHT + BAR_GAP) - BAR_GAP
        pen.line((at, top - 6, at, lower + 6), MARK, width=3)
