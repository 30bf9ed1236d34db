from datetime import date
from pathlib import Path

import pytest

from benchmarks.support.findings import Findings, Transfers

OURS, GUIDE, NGINX = "this project", "the guide's way", "nginx, proxy_cache_lock"
COPIES = {1: [1.0], 4: [1.0], 16: [1.0]}


@pytest.fixture
def findings() -> Findings:
    """Figures that meet every goal."""
    return Findings(
        day=date(2026, 1, 2),
        ours=OURS,
        load=0.0,
        transfers={
            OURS: Transfers(OURS, COPIES, COPIES, again=[0.00001]),
            GUIDE: Transfers(GUIDE, {1: [1.0], 4: [3.9], 16: [15.0]}, again=[0.0]),
        },
        link_s=10.0,
        warming_s=[10.0],
        cold_s=[10.9],
        peak_mb=[60.0],
        rate={OURS: [95e6], NGINX: [100e6]},
        tag_ms={OURS: [1.0], NGINX: [0.2]},
    )


def _page(findings: Findings, folder: Path) -> str:
    findings.write(folder)
    assert (folder / "benchmarks.png").exists()
    return (folder / "benchmarks.md").read_text()


def test_goals_that_are_met_are_said_to_be(findings: Findings, tmp_path: Path) -> None:
    page = _page(findings, tmp_path)

    assert page.count("| met |") == 6
    assert "missed" not in page
    assert "| the guide's way | 1.00x | 3.90x | 15.00x | 0.00x |" in page


@pytest.mark.parametrize(
    ("name", "value", "row"),
    [
        ("cold_s", [11.2], "four nodes cold, over what the link needs | 1.12x"),
        ("peak_mb", [101.0], "peak memory of warming | 101.00 MB"),
        ("tag_ms", {OURS: [5.5], NGINX: [0.2]}, "a warm tag | 5.50 ms"),
        ("rate", {OURS: [80e6], NGINX: [100e6]}, "warm, four nodes, over nginx | 0.80x"),
        (
            "transfers",
            {OURS: Transfers(OURS, COPIES, again=[0.02])},
            "a cluster created again | 0.02x",
        ),
    ],
)
def test_a_goal_that_is_missed_is_said_to_be(
    findings: Findings, tmp_path: Path, name: str, value: object, row: str
) -> None:
    setattr(findings, name, value)

    page = _page(findings, tmp_path)

    (line,) = (line for line in page.splitlines() if row in line)
    assert line.endswith("| **missed** |")


def test_what_could_not_be_run_is_said_with_its_reason(findings: Findings, tmp_path: Path) -> None:
    findings.left_out = {NGINX: "no such package"}
    findings.rate.pop(NGINX)

    assert f"Not run: {NGINX} (no such package)." in _page(findings, tmp_path)
