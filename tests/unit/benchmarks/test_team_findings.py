from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from benchmarks.support.processor import Busy
from benchmarks.support.reading import CLIENTS, Rate
from benchmarks.support.team_findings import CACHES, STORE, Morning, Scaling, TeamFindings

MB = 1_000_000
WARMED = Morning("warmed, all at once", 1.0, 4.0, is_warmed=True)


def _rates(machine: float, *megabytes: float) -> dict[int, list[Rate]]:
    busy = Busy(machine, {CACHES: 0.4, STORE: 0.2, CLIENTS: 0.3})
    return {number: [Rate(rate * MB, busy)] for number, rate in enumerate(megabytes, 1)}


@pytest.fixture
def findings() -> TeamFindings:
    """Figures that meet every goal."""
    return TeamFindings(
        day=date(2026, 1, 2),
        cores=2,
        load=0.0,
        workstations=20,
        nodes=2,
        mbit=100,
        copy_size=25 * MB,
        scaling=[
            Scaling(100, _rates(0.9, 12.0, 24.0, 36.0)),
            Scaling(None, _rates(1.95, 200.0, 210.0, 190.0)),
        ],
        mornings=[Morning("no team, within 5 s", 20.0, 41.0), WARMED],
    )


def _page(findings: TeamFindings, folder: Path) -> str:
    findings.write(folder)
    assert (folder / "benchmarks-team.png").exists()
    return " ".join((folder / "benchmarks-team.md").read_text().split())


def test_goals_that_are_met_are_said_to_be(findings: TeamFindings, tmp_path: Path) -> None:
    page = _page(findings, tmp_path)

    assert "3 nodes serve 1.00x of linear, met" in page
    assert "1.00x, met (goal 1.00x)" in page
    assert "missed" not in page
    assert "| no team, within 5 s | 20.00x | 41.0 s |" in page
    assert "needs 2.0 s for one copy" in page


def test_goals_that_are_missed_are_said_to_be(findings: TeamFindings, tmp_path: Path) -> None:
    findings.scaling[0] = Scaling(100, _rates(2.0, 12.0, 20.0, 25.0))
    findings.mornings[-1] = replace(WARMED, copies=1.02)

    page = _page(findings, tmp_path)

    assert "3 nodes serve 0.69x of linear, **missed**" in page
    assert "1.02x, **missed**" in page


def test_what_limits_is_named_for_each_number_of_nodes() -> None:
    cores = 2
    limited = Scaling(100, {**_rates(0.9, 12.0), 2: [Rate(10 * MB, Busy(1.0, {}))]})
    free = Scaling(None, _rates(1.9, 200.0))

    assert limited.limit(1, cores) == "the links"
    assert limited.limit(2, cores) == "neither"
    assert free.limit(1, cores) == "the processor"


def test_rounds_count_by_their_median() -> None:
    rounds = [Rate(rate * MB, Busy(cores, {CACHES: cores / 2})) for rate, cores in
              ((10, 1.0), (90, 1.8), (11, 1.2))]  # fmt: skip
    scaling = Scaling(None, {1: rounds, 2: rounds})

    assert scaling.bytes_per_s(1) == 11 * MB
    assert scaling.of_linear(2) == 0.5
    assert scaling.busy(1) == Busy(1.2, {CACHES: 0.6})


def test_a_gigabyte_is_told_in_seconds_of_a_core(findings: TeamFindings, tmp_path: Path) -> None:
    # 0.4 and 0.2 cores at 0.2 GB/s.
    assert "2.0 s of a core in the caches and 1.0 s of a core in the object store" in _page(
        findings, tmp_path
    )
