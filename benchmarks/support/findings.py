"""What `make bench` has found about nodes, as a page with a picture."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from statistics import median

from benchmarks.support import table
from benchmarks.support.picture import Bar, Panel, draw

COLD_GOAL = 1.10
RATE_GOAL = 0.9
TAG_GOAL_MS = 5.0
PEAK_GOAL_MB = 100.0
COPIES_GOAL = 1.00
AGAIN_GOAL = 0.00
NGINX = "nginx"

ByNodes = dict[int, list[float]]
"""Copies of the images, in each round, by the number of nodes."""


@dataclass(slots=True)
class Transfers:
    """What one way has cost the upstream.

    Attributes:
        way: its title.
        copies: what the upstream has sent.
        pulled: the same by the caches' own count, where they count.
        again: what it has sent for nodes that were created again, in copies.
    """

    way: str
    copies: ByNodes = field(default_factory=dict)
    pulled: ByNodes = field(default_factory=dict)
    again: list[float] = field(default_factory=list)


@dataclass(slots=True)
class Findings:
    """Figures of each round; those of all ways are by the way's title.

    Attributes:
        day: when.
        load: how many processes were running or waiting for a processor before it began.
        ours: the title of this project's way.
        left_out: ways that this machine could not run, with the reason.
        transfers: what each way has cost the upstream.
        link_s: seconds that the slow link needs for one copy.
        warming_s: seconds of the `up` that brought in the images.
        cold_s: seconds until four nodes then had everything, together with it.
        peak_mb: peak memory of warming in MB.
        rate: bytes per second that four nodes received from warm caches.
        tag_ms: milliseconds until a tag was answered.
        minutes: how long it all took.
    """

    day: date
    ours: str
    load: float
    left_out: dict[str, str] = field(default_factory=dict)
    transfers: dict[str, Transfers] = field(default_factory=dict)
    link_s: float = 0.0
    warming_s: list[float] = field(default_factory=list)
    cold_s: list[float] = field(default_factory=list)
    peak_mb: list[float] = field(default_factory=list)
    rate: dict[str, list[float]] = field(default_factory=dict)
    tag_ms: dict[str, list[float]] = field(default_factory=dict)
    minutes: float = 0.0

    def of(self, way: str) -> Transfers:
        """What a way has cost the upstream, to add to."""
        return self.transfers.setdefault(way, Transfers(way))

    def write(self, folder: Path) -> None:
        """Write benchmarks.md and benchmarks.png, and print the tables."""
        page = self._page()
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "benchmarks.md").write_text(page)
        self._draw(folder / "benchmarks.png")
        print(page)

    def _page(self) -> str:
        left_out = "".join(f"\nNot run: {way} ({why}).\n" for way, why in self.left_out.items())
        return f"""\
# Benchmarks

Written by `make bench` on {self.day}, in {self.minutes:.0f} minutes, on {table.machine()}.
Medians of {len(self.cold_s)} rounds, with the range in brackets. The ways took turns, so what else
the machine did slowed all of them; its load was {self.load:.1f} as this began, and figures of a
machine that does nothing else are better. The nodes are simulated: each pulls ten images of a Talos
cluster's sizes at the same time, and the upstream is a registry on the same machine.
The caches of a team have [a page of their own](benchmarks-team.md).
{left_out}
![bytes from upstream, and throughput](benchmarks.png)

## Bytes from upstream

Until so many nodes, which have nothing, have everything, beginning with empty caches; in copies of
the images, by the upstream's count. This project fills its caches once, ahead of the nodes. At
1 Gbit/s; at a lower rate, the guide's way costs more.

{table.markdown(["way", *self._heads(), "created again"], self._copies_rows())}
The same by the caches' own `registry_proxy_pulled_bytes_total`:

{table.markdown(["way", *self._heads()], self._pulled_rows())}
## Time and memory

{table.markdown(["figure", "measured", "goal", ""], self._goals())}
Four nodes at 100 Mbit/s: from the start of the `pulumi up` that brings the images into running
caches, until all nodes have everything. One copy needs {self.link_s:.1f} s of the link at least.
The headers of Ethernet, IP and TCP make that 1.05x: so long took a node without any cache.
Memory is that of a process that warms, with all that it imports.

## Warm caches

{table.markdown(["way", "four nodes", "a tag"], self._warm_rows())}
The rate is that of four nodes which check no digests, so that nodes, which have the same processor,
slow it least. nginx is faster since it lets the kernel send its files (`sendfile`): without, it was
as fast as distribution (0.96x and 1.06x). Distribution reads a blob through a buffer of its own
(`registry/storage/filereader.go`), and has no setting for it. nginx answers a tag without asking
the upstream whether it has changed.
"""

    def _heads(self) -> list[str]:
        return [table.count(count) for count in self.of(self.ours).copies]

    def _copies_rows(self) -> Iterator[list[str]]:
        for way, found in self.transfers.items():
            values = [*found.copies.values(), found.again]
            yield [way, *(f"{median(value):.2f}x" for value in values)]

    def _pulled_rows(self) -> Iterator[list[str]]:
        for way, found in self.transfers.items():
            if found.pulled:
                yield [way, *(f"{median(value):.2f}x" for value in found.pulled.values())]

    def _goals(self) -> Iterator[list[str]]:
        ours = self.of(self.ours)
        copies = [round(one, 2) for values in ours.copies.values() for one in values]
        yield _goal("copies from upstream, any number of nodes", copies, "x", COPIES_GOAL)
        again = [round(one, 2) for one in ours.again]
        yield _goal("copies from upstream, a cluster created again", again, "x", AGAIN_GOAL)
        cold = [value / self.link_s for value in self.cold_s]
        yield _goal("four nodes cold, over what the link needs", cold, "x", COLD_GOAL)
        warming = [value / self.link_s for value in self.warming_s]
        yield [*_goal("of that, `pulumi up` with the images", warming, "x", 0)[:2], "", ""]
        if nginx := next((way for way in self.rate if way.startswith(NGINX)), None):
            pairs = zip(self.rate[self.ours], self.rate[nginx], strict=True)
            rates = [mine / other for mine, other in pairs]
            yield _goal("warm, four nodes, over nginx", rates, "x", RATE_GOAL, at_least=True)
        yield _goal("a warm tag", self.tag_ms[self.ours], " ms", TAG_GOAL_MS)
        yield _goal("peak memory of warming", self.peak_mb, " MB", PEAK_GOAL_MB)

    def _warm_rows(self) -> Iterator[list[str]]:
        for way, rates in self.rate.items():
            megabytes = [rate / table.MB for rate in rates]
            yield [way, f"{median(megabytes):.0f} MB/s", f"{median(self.tag_ms[way]):.1f} ms"]

    def _draw(self, file: Path) -> None:
        panels = [
            Panel(
                f"Copies from upstream, {table.count(count)} cold",
                [
                    self._bar(way, found.copies[count], "x", ".2f")
                    for way, found in self.transfers.items()
                ],
                mark=1.0,
            )
            for count in (1, 4, 16)
        ]
        rates = {way: [rate / table.MB for rate in rates] for way, rates in self.rate.items()}
        panels.append(
            Panel(
                "Warm, four nodes together: MB/s",
                [self._bar(way, values, " MB/s", ".0f") for way, values in rates.items()],
            )
        )
        note = f"Medians; {table.machine()}; {self.day}. Orange: one copy."
        draw(file, "Ten images of a cluster's sizes", panels, note)

    def _bar(self, way: str, values: list[float], unit: str, form: str) -> Bar:
        value = median(values)
        return Bar(way, value, f"{value:{form}}{unit}", way == self.ours)


def _goal(
    title: str, values: list[float], unit: str, goal: float, *, at_least: bool = False
) -> list[str]:
    """A row: the median with its range, the goal, and whether it is met."""
    value = median(values)
    is_met = value >= goal if at_least else value <= goal
    words = f"{'at least' if at_least else 'at most'} {goal:.2f}{unit}"
    measured = f"{value:.2f}{unit} [{min(values):.2f}-{max(values):.2f}]"
    return [title, measured, words, "met" if is_met else "**missed**"]
