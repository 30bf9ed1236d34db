"""Pictures of a terminal as an animated SVG.

GitHub removes scripts and SMIL elements from an SVG, and shows it without access to fonts from
elsewhere. So all pictures are below each other on one strip, which a CSS animation moves behind a
window. A viewer that knows no animations, or does not want them, sees the last picture.
"""

from collections.abc import Iterator, Sequence
from html import escape
from itertools import accumulate

from pyte.graphics import FG_BG_256

from benchmarks.support.frames import Frame, Line, Span, Style
from benchmarks.support.terminal import Size

# In pixels. The width is that of a character of most monospaced fonts.
FONT_SIZE = 13.33
CHARACTER = 8
ROW = 17
BASELINE = 13
MARGIN = 16
ROUND = 8

FONTS = (
    "ui-monospace,SFMono-Regular,Menlo,'Cascadia Mono','DejaVu Sans Mono','Liberation Mono',"
    "Consolas,monospace"
)
NAMES = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
NO_BREAK_SPACE = "\N{NO-BREAK SPACE}"
PAPER = "#0d1117"
INK = "#e6edf3"
# The names are pyte's.
COLOURS = {
    "black": "#484f58",
    "red": "#ff7b72",
    "green": "#3fb950",
    "brown": "#d29922",
    "blue": "#58a6ff",
    "magenta": "#bc8cff",
    "cyan": "#39c5cf",
    "white": "#b1bac4",
    "brightblack": "#6e7681",
    "brightred": "#ffa198",
    "brightgreen": "#56d364",
    "brightbrown": "#e3b341",
    "brightblue": "#79c0ff",
    "brightmagenta": "#d2a8ff",
    "brightcyan": "#56d4dd",
    "brightwhite": "#ffffff",
}
# The first 16 of the 256 colours are the same.
_SAME = dict(zip(FG_BG_256, COLOURS.values(), strict=False))


def draw(frames: Sequence[Frame], size: Size, title: str) -> str:
    """Draw pictures as an SVG that plays them again and again.

    Args:
        frames: the pictures.
        size: the size of the terminal.
        title: what a screen reader says.
    """
    width, height = size.columns * CHARACTER, size.rows * ROW
    whole = width + 2 * MARGIN, height + 2 * MARGIN
    shown = dict.fromkeys(line for frame in frames for line in frame.lines if line)
    lines = {line: f"l{number}" for number, line in enumerate(shown)}
    used = dict.fromkeys(span.style for line in lines for span in line)
    styles = {style: f"s{number}" for number, style in enumerate(used)}
    box = 'width="{0}" height="{1}" viewBox="0 0 {0} {1}"'.format(*whole)
    parts = [
        f'<svg {NAMES} role="img" {box}>',
        f"<title>{escape(title)}</title>",
        f"<style>{''.join(_rules(frames, height, styles))}</style>",
        f'<rect width="100%" height="100%" rx="{ROUND}" fill="{PAPER}"/>',
        "<defs>",
        *(f'<g id="{name}">{_texts(line, styles)}</g>' for line, name in lines.items()),
        "</defs>",
        f'<svg x="{MARGIN}" y="{MARGIN}" width="{width}" height="{height}">',
        f'<g class="strip" transform="translate(0 {-height * (len(frames) - 1)})">',
        *(_picture(frame, number * height, lines) for number, frame in enumerate(frames)),
        "</g></svg></svg>",
    ]
    return "\n".join(parts) + "\n"


def _rules(frames: Sequence[Frame], height: int, styles: dict[Style, str]) -> Iterator[str]:
    """The style sheet: fonts and colours, and which picture is in the window when."""
    yield f"text{{font:{FONT_SIZE}px {FONTS}}}.cursor{{fill:{INK}}}"
    for style, name in styles.items():
        bold = ";font-weight:bold" if style.is_bold else ""
        line = ";text-decoration:underline" if style.is_underlined else ""
        yield f".{name}{{fill:{_colour(style.colour)}{bold}{line}}}"
    ends = list(accumulate(frame.seconds for frame in frames))
    yield f".strip{{animation:play {_number(ends[-1])}s steps(1,end) infinite}}"
    yield "@media (prefers-reduced-motion:reduce){.strip{animation:none}}"
    yield "@keyframes play{"
    for number, start in enumerate([0.0, *ends[:-1]]):
        percent = f"{100 * start / ends[-1]:.3f}".rstrip("0").rstrip(".")
        yield f"{percent}%{{transform:translateY({-number * height}px)}}"
    yield f"to{{transform:translateY({-(len(frames) - 1) * height}px)}}}}"


def _picture(frame: Frame, top: int, lines: dict[Line, str]) -> str:
    used = "".join(
        f'<use xlink:href="#{lines[line]}" y="{row * ROW}"/>'
        for row, line in enumerate(frame.lines)
        if line
    )
    cursor = ""
    if frame.cursor:
        column, row = frame.cursor
        cursor = (
            f'<rect class="cursor" x="{column * CHARACTER}" y="{row * ROW}" '
            f'width="{CHARACTER}" height="{ROW}"/>'
        )
    return f'<g transform="translate(0 {top})">{used}{cursor}</g>'


def _texts(line: Line, styles: dict[Style, str]) -> str:
    return "".join(_text(span, styles[span.style]) for span in line)


def _text(span: Span, style: str) -> str:
    # Columns stay aligned in a font with another width. Usual spaces in a row would become one.
    text = escape(span.text, quote=False).replace(" ", NO_BREAK_SPACE)
    return (
        f'<text class="{style}" x="{span.column * CHARACTER}" y="{BASELINE}" '
        f'textLength="{len(span.text) * CHARACTER}">{text}</text>'
    )


def _colour(name: str) -> str:
    if name == "default":
        return INK
    return COLOURS.get(name) or _SAME.get(name) or f"#{name}"


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
