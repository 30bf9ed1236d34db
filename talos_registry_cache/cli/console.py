"""Tables, progress and messages. Only results go to standard output."""

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TransferSpeedColumn,
)
from rich.table import Table

from talos_registry_cache import sizes

EVERY_S = 5.0

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


class Meter:
    """Progress in bytes: a bar on a terminal, a line every few seconds elsewhere."""

    def __init__(self, title: str, bar: Progress | None) -> None:
        self._title = title
        self._bar = bar
        self._task = bar.add_task(title, total=None) if bar else None
        self._started = self._said = time.monotonic()
        self.done = 0

    def add(self, number: int) -> None:
        """Add to the bytes that are done."""
        self.show(self.done + number, None)

    def show(self, done: int, total: int | None) -> None:
        """Set the bytes that are done, and all bytes if known."""
        self.done = done
        if self._bar and self._task is not None:
            self._bar.update(self._task, completed=done, total=total)
        elif time.monotonic() - self._said >= EVERY_S:
            self._said = time.monotonic()
            say(f"{self._title}: {self._amount(total)}")

    def end(self) -> None:
        """Print the total."""
        if self._bar is None and self.done:
            say(f"{self._title}: {self._amount(None)}, done")

    def _amount(self, total: int | None) -> str:
        rate = self.done / max(time.monotonic() - self._started, 0.001)
        of = "" if total is None else f" of {size(total)}"
        return f"{size(self.done)}{of}, {size(int(rate))}/s"


@contextmanager
def meter(title: str) -> Iterator[Meter]:
    """Show the progress of long work."""
    if not err.is_terminal:
        made = Meter(title, None)
        yield made
        made.end()
        return
    columns = (
        TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(),
    )  # fmt: skip
    with Progress(*columns, console=err, transient=True) as bar:
        yield Meter(title, bar)


@contextmanager
def counting(title: str, total: int) -> Iterator[Callable[[], None]]:
    """Show how many of some things are done; yields a function to call for each."""
    done, said = 0, time.monotonic()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        task = bar.add_task(title, total=total)

        def count() -> None:
            nonlocal done, said
            done += 1
            bar.advance(task)
            if not err.is_terminal and time.monotonic() - said >= EVERY_S:
                said = time.monotonic()
                say(f"{title}: {done} of {total}")

        yield count


def say(line: str) -> None:
    """Print a message to standard error."""
    err.print(line, markup=False)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table; a column whose name begins with > is aligned to the right."""
    made = rendered(columns, rows)
    if out.is_terminal:
        out.print(made)
    else:
        # For a file or a program: lines are not cut.
        Console(file=sys.stdout, highlight=False, width=1000).print(made)


def rendered(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """A table as `table` prints it."""
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        right = column.startswith(">")
        made.add_column(column.lstrip(">"), justify="right" if right else "left", no_wrap=True)
    for row in rows:
        made.add_row(*(_plain(cell) for cell in row))
    return made


def as_json(result: Any) -> None:
    """Print a result as JSON."""
    sys.stdout.write(json.dumps(result, indent=2) + "\n")


def json_line(result: Any) -> None:
    """Print a result as JSON on one line, at once."""
    sys.stdout.write(json.dumps(result) + "\n")
    sys.stdout.flush()


def count(number: int, what: str) -> str:
    """A number of things, such as 1 image or 2 images."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def size(number: int) -> str:
    """Format a number of bytes, such as 1.2 MB."""
    return sizes.text(number)


def _plain(cell: str) -> str:
    return cell.replace("[", r"\[")
