"""Tables in Markdown, and the words for figures."""

import os
import platform
from collections.abc import Iterable, Sequence
from pathlib import Path

MB = 1_000_000


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; the first column is text, the others are figures."""
    lines = [head, ["---", *("---:" for _ in head[1:])], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def count(nodes: int) -> str:
    """A number of nodes in words."""
    return f"{nodes} node{'s' if nodes > 1 else ''}"


def seconds(value: float) -> str:
    """A time in words."""
    return f"{value:.1f} s"


def copies(size: float, copy_size: int) -> str:
    """Bytes as multiples of what one node needs."""
    return f"{size / copy_size:.2f}x"


def megabytes(size: float | None) -> str:
    """Bytes in words; None is what nobody has counted."""
    return "not counted" if size is None else f"{size / MB:.1f} MB"


def machine() -> str:
    """This machine in words."""
    info = Path("/proc/cpuinfo")
    models = [line for line in info.read_text().splitlines() if line.startswith("model name")]
    model = models[0].partition(": ")[2] if models else platform.machine()
    return f"{os.cpu_count()} cores ({model}), Linux {platform.release()}"
