"""The files in monitoring/. The integration tests of metrics load them into a real Prometheus."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from components import placement
from talos_registry_cache.cli.__main__ import app
from talos_registry_cache.cli.commands import exporter
from talos_registry_cache.cli.commands.metrics import monitoring_folder
from talos_registry_cache.engine import labels

PROMETHEUS = ("prometheus.yml", "prometheus-swarm.yml")
COLUMNS = 24


def job(name: str, job_name: str = "registry-caches") -> dict[str, Any]:
    """A job in a configuration of Prometheus."""
    jobs = yaml.safe_load((monitoring_folder() / name).read_text())["scrape_configs"]
    return next(one for one in jobs if one["job_name"] == job_name)


@pytest.fixture
def panels() -> list[dict[str, Any]]:
    return list(json.loads((monitoring_folder() / "dashboard.json").read_text())["panels"])


def test_cachectl_metrics_writes_the_files(tmp_path: Path) -> None:
    assert CliRunner().invoke(app, ["metrics", "--output", str(tmp_path)]).exit_code == 0

    written = {file.name: file.read_text() for file in tmp_path.iterdir()}
    assert written == {file.name: file.read_text() for file in monitoring_folder().iterdir()}
    assert {*PROMETHEUS, "rules.yml", "dashboard.json"} == written.keys()


@pytest.mark.parametrize("name", PROMETHEUS)
def test_prometheus_takes_port_and_labels_from_the_caches(name: str) -> None:
    rules = {rule.get("target_label"): rule for rule in job(name)["relabel_configs"]}

    assert rules["__address__"]["replacement"] == f"$1:{placement.METRICS_PORT}"
    for target, label in (("stack", labels.STACK), ("upstream", labels.UPSTREAM)):
        (source,) = rules[target]["source_labels"]
        assert source.endswith(f"_label_{re.sub(r'[^a-z]', '_', label)}")


@pytest.mark.parametrize("name", PROMETHEUS)
def test_prometheus_asks_no_front(name: str) -> None:
    rules = job(name)["relabel_configs"]
    (drop,) = (rule for rule in rules if rule.get("action") == "drop")

    (source,) = drop["source_labels"]
    assert source.endswith(f"_label_{re.sub(r'[^a-z]', '_', labels.REGISTRY)}")


def test_the_series_of_the_exporter_have_the_node_of_the_caches() -> None:
    (target,) = job(PROMETHEUS[0], "registry-fronts")["static_configs"]
    (node,) = (
        rule["replacement"]
        for rule in job(PROMETHEUS[0])["relabel_configs"]
        if rule.get("target_label") == "node"
    )

    assert target == {"targets": [exporter.ADDRESS], "labels": {"node": node}}


def test_every_query_of_the_dashboard_is_limited_to_the_selection(
    panels: list[dict[str, Any]],
) -> None:
    for panel in panels:
        for target in panel["targets"]:
            selectors = re.findall(r"\{(.*?)\}", target["expr"])
            assert selectors
            for selector in selectors:
                assert 'stack="$stack", upstream=~"$upstream", node=~"$node"' in selector
