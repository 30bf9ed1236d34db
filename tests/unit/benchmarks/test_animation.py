import re
from collections.abc import Sequence
from itertools import pairwise
from xml.etree import ElementTree as ET

from benchmarks.support import animation
from benchmarks.support.frames import Frame, Line, Span, Style, Take, play
from benchmarks.support.terminal import Printed, Size

SIZE = Size(30, 5)
HEIGHT = SIZE.rows * animation.ROW
SVG = "{http://www.w3.org/2000/svg}"
LINK = "{http://www.w3.org/1999/xlink}href"


def line(text: str, style: Style | None = None) -> Line:
    return (Span(0, text, style or Style()),)


def parsed(drawing: str) -> ET.Element:
    return ET.fromstring(drawing)  # noqa: S314 - made by this test


def drawn(*frames: Frame) -> ET.Element:
    return parsed(animation.draw(frames, SIZE, "a <terminal>"))


def strip(svg: ET.Element) -> ET.Element:
    (found,) = svg.findall(f".//{SVG}g[@class='strip']")
    return found


def pictures(svg: ET.Element) -> Sequence[Sequence[str]]:
    """The texts of each picture."""
    lines = {f"#{one.get('id')}": "".join(one.itertext()) for one in svg.iter(f"{SVG}g")}
    return [
        [lines[one.attrib[LINK]] for one in picture.iter(f"{SVG}use")] for picture in strip(svg)
    ]


def style_sheet(svg: ET.Element) -> str:
    return str(svg.findtext(f"{SVG}style"))


def test_the_pictures_are_below_each_other_and_shown_for_their_time() -> None:
    svg = drawn(
        Frame((line("one"),), None, 1.0),
        Frame((line("two"),), None, 2.0),
        Frame((line("three"),), None, 1.0),
    )

    assert pictures(svg) == [["one"], ["two"], ["three"]]
    assert [one.get("transform") for one in strip(svg)] == [
        f"translate(0 {number * HEIGHT})" for number in range(3)
    ]
    assert "animation:play 4s steps(1,end) infinite" in style_sheet(svg)
    steps = re.findall(r"([\d.]+%|to)\{transform:translateY\((-?\d+)px\)", style_sheet(svg))
    assert steps == [
        ("0%", "0"),
        ("25%", f"-{HEIGHT}"),
        ("75%", f"-{2 * HEIGHT}"),
        ("to", f"-{2 * HEIGHT}"),
    ]


def test_a_viewer_without_animations_sees_the_last_picture() -> None:
    svg = drawn(Frame((line("one"),), None, 1.0), Frame((line("two"),), None, 1.0))

    assert strip(svg).get("transform") == f"translate(0 -{HEIGHT})"
    assert "prefers-reduced-motion:reduce){.strip{animation:none}" in style_sheet(svg)


def test_a_row_that_several_pictures_show_is_there_once() -> None:
    same = line("same")

    svg = drawn(Frame((same, line("one")), None, 1.0), Frame(((), same), None, 1.0))

    assert pictures(svg) == [["same", "one"], ["same"]]
    assert [text.text for text in svg.iter(f"{SVG}text")] == ["same", "one"]
    assert [use.get("y") for use in svg.iter(f"{SVG}use")] == ["0", "17", "17"]


def test_text_keeps_its_columns_its_spaces_and_its_characters() -> None:
    svg = drawn(Frame(((Span(3, "a  <b> & c", Style()),),), None, 1.0))

    (text,) = svg.iter(f"{SVG}text")
    assert text.text == "a  <b> & c".replace(" ", "\N{NO-BREAK SPACE}")
    assert text.get("x") == str(3 * animation.CHARACTER)
    assert text.get("textLength") == str(10 * animation.CHARACTER)
    assert svg.findtext(f"{SVG}title") == "a <terminal>"


def test_text_has_its_style() -> None:
    styles = [Style("green"), Style("00cd00", is_bold=True), Style("ff005f", is_underlined=True)]

    svg = drawn(Frame(tuple(line("text", style) for style in styles), None, 1.0))

    green = animation.COLOURS["green"]
    assert f".s0{{fill:{green}}}" in style_sheet(svg)
    assert f".s1{{fill:{green};font-weight:bold}}" in style_sheet(svg)
    assert ".s2{fill:#ff005f;text-decoration:underline}" in style_sheet(svg)


def test_the_cursor_is_a_block() -> None:
    svg = drawn(Frame((line("one"),), (4, 2), 1.0), Frame((line("two"),), None, 1.0))

    (cursor,) = svg.findall(f".//{SVG}rect[@class='cursor']")
    assert (cursor.get("x"), cursor.get("y")) == ("32", "34")


def test_it_needs_nothing_that_github_removes_or_refuses() -> None:
    typed = Take("make up", [Printed(1.0, b"\x1b[31mready\x1b[0m\r\n")])

    drawing = animation.draw(play([typed], SIZE), SIZE, "title")

    tags = {element.tag.removeprefix(SVG) for element in parsed(drawing).iter()}
    assert tags == {"svg", "title", "style", "rect", "defs", "g", "text", "use"}
    assert set(re.findall(r"\S+?://\S+", drawing.replace(animation.NAMES, ""))) == set()
    assert not re.search(r"url\(|@import|@font-face", drawing)


def test_every_picture_starts_after_the_one_before() -> None:
    printed = [Printed(number / 3, f"{number}\r\n".encode()) for number in range(1, 40)]

    drawing = animation.draw(play([Take("count", printed)], SIZE), SIZE, "title")

    starts = [float(one) for one in re.findall(r"([\d.]+)%\{transform", drawing)]
    assert starts[0] == 0
    assert all(one < other for one, other in pairwise(starts))
