from pathlib import Path

from PIL import Image, ImageColor

from benchmarks.support import picture
from benchmarks.support.picture import Bar, Panel, draw


def _pixels(file: Path, colour: str) -> int:
    with Image.open(file) as image:
        counted = {value: count for count, value in image.getcolors(maxcolors=1 << 24) or []}
    return int(counted.get(ImageColor.getrgb(colour), 0))


def test_bars_are_as_long_as_their_values(tmp_path: Path) -> None:
    file = tmp_path / "new" / "picture.png"
    bars = [Bar("theirs", 4.0, "4 s"), Bar("ours", 1.0, "1 s", is_ours=True)]

    draw(file, "title", [Panel("panel", bars)], "note")

    theirs, ours = _pixels(file, picture.OTHERS), _pixels(file, picture.OURS)
    assert ours > 0
    assert abs(theirs / ours - 4.0) < 0.1


def test_a_value_that_is_marked_is_within_the_picture(tmp_path: Path) -> None:
    file = tmp_path / "picture.png"

    draw(file, "title", [Panel("panel", [Bar("ours", 1.0, "1 s")], mark=5.0)], "note")

    assert _pixels(file, picture.MARK) > 0


def test_values_of_nothing_can_be_drawn(tmp_path: Path) -> None:
    file = tmp_path / "picture.png"

    draw(file, "title", [Panel("panel", [Bar("ours", 0.0, "0 MB", is_ours=True)])], "note")

    assert _pixels(file, picture.OURS) > 0
