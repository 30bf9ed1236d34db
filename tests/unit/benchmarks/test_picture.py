from pathlib import Path

from PIL import Image, ImageColor

from benchmarks.support import picture
from benchmarks.support.picture import Bar, Panel, draw


def test_bars_are_as_long_as_their_values_and_the_mark_is_visible(tmp_path: Path) -> None:
    file = tmp_path / "new" / "picture.png"
    bars = [Bar("theirs", 4.0, "4 s"), Bar("ours", 1.0, "1 s", is_ours=True)]

    draw(file, "title", [Panel("panel", bars, mark=5.0)], "note")

    theirs, ours = _pixels(file, picture.OTHERS), _pixels(file, picture.OURS)
    assert ours > 0
    assert abs(theirs / ours - 4.0) < 0.1
    assert _pixels(file, picture.MARK) > 0


def test_zero_values_can_be_drawn(tmp_path: Path) -> None:
    file = tmp_path / "picture.png"

    draw(file, "title", [Panel("panel", [Bar("ours", 0.0, "0 MB", is_ours=True)])], "note")

    assert _pixels(file, picture.OURS) > 0


def _pixels(file: Path, colour: str) -> int:
    with Image.open(file) as image:
        counted = {value: count for count, value in image.getcolors(maxcolors=1 << 24) or []}
    return int(counted.get(ImageColor.getrgb(colour), 0))
