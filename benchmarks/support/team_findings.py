"""What `make bench` has found about a team's stack, as a page with a picture."""

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from statistics import median

from benchmarks.support import table
from benchmarks.support.picture import Bar, Panel, draw
from benchmarks.support.processor import Busy
from benchmarks.support.reading import CLIENTS, Rate

LINEAR_GOAL = 0.9
COPIES_GOAL = 1.0
WIDTH = 100
FULL = 0.9
"""From this part of what there is on, it is what limits."""
CACHES, STORE = "caches", "object store"


@dataclass(slots=True)
class Scaling:
    """How fast so many nodes served what they hold.

    Attributes:
        mbit: what the link of each node was limited to, or None.
        rates: the rate in each round, by the number of nodes.
    """

    mbit: int | None
    rates: dict[int, list[Rate]] = field(default_factory=dict)

    def bytes_per_s(self, nodes: int) -> float:
        """What nodes served together; the median of the rounds."""
        return median(rate.bytes_per_s for rate in self.rates[nodes])

    def busy(self, nodes: int) -> Busy:
        """How busy the processor was; the medians of the rounds."""
        found = [rate.busy for rate in self.rates[nodes]]
        by = {name: median(one.by[name] for one in found) for name in found[0].by}
        return Busy(median(one.machine for one in found), by)

    def of_linear(self, nodes: int) -> float:
        """What nodes served, over so many times what one of them did."""
        return self.bytes_per_s(nodes) / nodes / self.bytes_per_s(1)

    def limit(self, nodes: int, cores: int) -> str:
        """What kept them from serving more."""
        if self.mbit and self.bytes_per_s(nodes) >= FULL * nodes * self.mbit * table.MB / 8:
            return "the links"
        if self.busy(nodes).machine >= FULL * cores:
            return "the processor"
        return "neither"


@dataclass(frozen=True, slots=True)
class Morning:
    """What it took until every workstation had everything.

    Attributes:
        title: how they did it.
        copies: what came from the internet, in copies of the images.
        seconds: from the first one's start on.
        is_warmed: whether the team's stack had brought the images in before.
    """

    title: str
    copies: float
    seconds: float
    is_warmed: bool = False


@dataclass(slots=True)
class TeamFindings:
    """Figures about a team.

    Attributes:
        day: when.
        cores: how many the machine has.
        load: how many processes were running or waiting for a processor before it began.
        workstations: how many there are.
        nodes: how many nodes of the team they ask.
        mbit: the rate of the link to the internet.
        copy_size: how many bytes one of them needs.
        scaling: with links that are limited, and not.
        mornings: each way of a morning.
        minutes: how long it all took.
    """

    day: date
    cores: int
    load: float
    workstations: int
    nodes: int
    mbit: int
    copy_size: int = 0
    scaling: list[Scaling] = field(default_factory=list)
    mornings: list[Morning] = field(default_factory=list)
    minutes: float = 0.0

    def write(self, folder: Path) -> None:
        """Write benchmarks-team.md and benchmarks-team.png, and print the tables."""
        page = self._page()
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "benchmarks-team.md").write_text(page)
        self._draw(folder / "benchmarks-team.png")
        print(page)

    @property
    def link_s(self) -> float:
        """Seconds that one copy needs of the link at least."""
        return self.copy_size * 8 / (self.mbit * 1_000_000)

    def _page(self) -> str:
        return f"""\
# Benchmarks of a team's caches

{_paragraph(self._conditions())}

![throughput, and copies from the internet](benchmarks-team.png)

## One, two and three nodes, warm

Two clients for each node read blobs from it, by TLS, as fast as they come; they check nothing.

{table.markdown(_SERVED_HEAD, self._served_rows())}
{_paragraph(self._served_verdict())}

{_paragraph(self._costs())}

## {self.workstations} workstations in the morning

{_paragraph(self._morning_conditions())}

{table.markdown(["way", "from the internet", "until all had everything"], self._morning_rows())}
{_paragraph(self._morning_verdict())}

An image that is not there yet costs a copy for each workstation that asks while it comes in: the
registry keeps the first answer, and sends the others on to the upstream meanwhile (distribution
3.1, `registry/proxy/proxyblobstore.go`). So the images of a morning belong into the `images` of the
team's stack.
"""

    def _conditions(self) -> str:
        return f"""
Written by `make bench` on {self.day}, in {self.minutes:.0f} minutes, on {table.machine()}. The load
of the machine was {self.load:.1f} as this began; figures of one that does nothing else are better.
Everything runs on it: three hosts in a Swarm, as engines in network namespaces of their own, MinIO
in another one, the upstream, and the clients. The caches are a stack of this program, with TLS and
a password. Rates are medians of {len(self.scaling[0].rates[1])} rounds; each morning was run once.
What follows for larger numbers: [at scale](scale.md)."""

    def _morning_conditions(self) -> str:
        return f"""
Each has a cache of its own, and nothing of ten new images ({table.megabytes(self.copy_size)}). They
start evenly spread over so many seconds. The internet is a link of {self.mbit} Mbit/s, which needs
{self.link_s:.1f} s for one copy. The workstations are no machines of their own: their caches are
containers of one engine, with the settings that `via` gives them, over {self.nodes} nodes of the
team, and each is asked by one client, which checks every digest. So where the link does not limit,
times are those of {self.cores} cores which are all workstations, the team and the store at once."""

    def _served_verdict(self) -> str:
        limited = next(scaling for scaling in self.scaling if scaling.mbit)
        most = max(limited.rates)
        value = limited.of_linear(most)
        return f"""
`of linear` is the rate over so many times that of one node. With links of {limited.mbit} Mbit/s
these are the limit, which shows how the design scales: {most} nodes serve {value:.2f}x of linear,
{_met(value >= LINEAR_GOAL)} (goal: at least {LINEAR_GOAL:.2f}x, until something other than the
nodes is the limit). With links that are not limited, all nodes, the store and the clients share
the {self.cores} cores of this machine: where one node has them all busy, more cannot serve more.
The columns to the right say how many cores were busy, with whom; `rest` is the kernel's own work
for the network, and whatever else the machine did."""

    def _served_rows(self) -> Iterator[list[str]]:
        for scaling in self.scaling:
            link = f"{scaling.mbit} Mbit/s" if scaling.mbit else "not limited"
            for nodes in scaling.rates:
                busy = scaling.busy(nodes)
                yield [
                    f"{table.count(nodes)}, links {link}",
                    f"{scaling.bytes_per_s(nodes) / table.MB:.1f} MB/s",
                    f"{scaling.of_linear(nodes):.2f}x",
                    scaling.limit(nodes, self.cores),
                    f"{busy.machine:.2f} of {self.cores}",
                    *(f"{busy.by[name]:.2f}" for name in (CACHES, STORE, CLIENTS)),
                    f"{busy.others:.2f}",
                ]

    def _costs(self) -> str:
        """What a gigabyte costs, where nothing but the processor is the limit."""
        free = next(scaling for scaling in self.scaling if not scaling.mbit)
        busy, rate = free.busy(1), free.bytes_per_s(1) / 1e9
        parts = {name: busy.by[name] / rate for name in (CACHES, STORE)}
        spent = " and ".join(f"{value:.1f} s of a core in the {n}" for n, value in parts.items())
        return f"A gigabyte from one node, links not limited, took {spent}."

    def _morning_rows(self) -> Iterator[list[str]]:
        for morning in self.mornings:
            yield [morning.title, f"{morning.copies:.2f}x", table.seconds(morning.seconds)]

    def _morning_verdict(self) -> str:
        warmed = next(morning for morning in self.mornings if morning.is_warmed)
        is_met = round(warmed.copies, 2) <= COPIES_GOAL
        return (
            f"With the images in the team's stack, all workstations together cost the internet "
            f"{warmed.copies:.2f}x, {_met(is_met)} (goal {COPIES_GOAL:.2f}x); "
            "its time counts from the first workstation on, since the images came before."
        )

    def _draw(self, file: Path) -> None:
        panels = [_rates_panel(scaling) for scaling in self.scaling]
        panels += [
            self._morning_panel(
                "Copies from the internet",
                [(one, one.copies, f"{one.copies:.2f}x") for one in self.mornings],
                mark=1.0,
            ),
            self._morning_panel(
                "Until all workstations had everything",
                [(one, one.seconds, table.seconds(one.seconds)) for one in self.mornings],
                mark=self.link_s,
            ),
        ]
        note = (
            f"{self.workstations} workstations, each needs {table.megabytes(self.copy_size)}, "
            f"behind {self.mbit} Mbit/s; "
            f"{table.machine()}; {self.day}.\nOrange: linear scaling, one copy, and what one copy "
            "takes over that link."
        )
        draw(file, "The caches of a team", panels, note)

    def _morning_panel(
        self, title: str, bars: Sequence[tuple[Morning, float, str]], mark: float
    ) -> Panel:
        made = [Bar(one.title, value, text, one.is_warmed) for one, value, text in bars]
        return Panel(title, made, mark)


_SERVED_HEAD = (
    "nodes", "rate", "of linear", "limit", "cores busy", CACHES, STORE, CLIENTS, "rest",
)  # fmt: skip


def _rates_panel(scaling: Scaling) -> Panel:
    link = f"links of {scaling.mbit} Mbit/s" if scaling.mbit else "links not limited"
    bars = [
        Bar(
            table.count(nodes),
            scaling.bytes_per_s(nodes),
            f"{scaling.bytes_per_s(nodes) / table.MB:.0f} MB/s, {scaling.of_linear(nodes):.2f}x",
            is_ours=True,
        )
        for nodes in scaling.rates
    ]
    most = max(scaling.rates)
    return Panel(f"Warm, {link}", bars, most * scaling.bytes_per_s(1))


def _paragraph(text: str) -> str:
    return textwrap.fill(" ".join(text.split()), WIDTH, break_on_hyphens=False)


def _met(is_met: bool) -> str:  # noqa: FBT001 - it is what is said
    return "met" if is_met else "**missed**"
