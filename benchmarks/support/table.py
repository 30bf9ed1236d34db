"""Tables in Markdown, units, and where results are written."""

import os
import platform
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.support.pulumi_stack import ROOT
from toolchain.report import say

MB = 1_000_000
BUILD = ROOT / "build"


def write(name: str, text: str, folder: Path = BUILD) -> None:
    """Print a result and write it to a file."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    print(text)
    say(f"written: {folder / name}")


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; the first column is text, the others are numbers."""
    lines = [head, ["---", *("---:" for _ in head[1:])], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def seconds(value: float) -> str:
    """A duration with its unit."""
    return f"{value:.1f} s"


def copies(size: float, copy_size: int) -> str:
    """Bytes as multiples of what one node needs."""
    return f"{size / copy_size:.2f}x"


def megabytes(size: float) -> str:
    """Bytes in MB."""
    return f"{size / MB:.1f} MB"


def link_seconds(size: int, mbit: int) -> float:
    """The seconds that a link of this many megabits per second needs for these bytes."""
    return size * 8 / (mbit * MB)


def machine() -> str:
    """This machine's processor and kernel."""
    info = Path("/proc/cpuinfo")
    models = [line for line in info.read_text().splitlines() if line.startswith("model name")]
    model = models[0].partition(": ")[2] if models else platform.machine()
    return f"{os.cpu_count()} cores ({model}), Linux {platform.release()}"
