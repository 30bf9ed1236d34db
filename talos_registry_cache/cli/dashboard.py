"""A dashboard of Grafana that shows the caches of stacks: what they save, serve, and suffer.

Metrics: distribution 3.1, registry/proxy/proxymetrics.go, registry/storage/driver/base/base.go and
the HTTP handler of go-metrics. Labels: cli/prometheus.py. Format: JSON model of a dashboard of
Grafana, schema version 36.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

FILE = "registry-caches.json"
UID = "registry-caches"
SCHEMA = 36
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
COLUMNS = 24

CHOSEN = 'stack="$stack", upstream=~"$upstream", node=~"$node"'
SERVED = f"registry_proxy_pushed_bytes_total{{{CHOSEN}}}"
FETCHED = f"registry_proxy_pulled_bytes_total{{{CHOSEN}}}"
HITS = f"registry_proxy_hits_total{{{CHOSEN}}}"
ASKED = f"registry_proxy_requests_total{{{CHOSEN}}}"
# Health checks are requests of the base.
ANSWERED = f'registry_http_requests_total{{{CHOSEN}, handler!="base"}}'
FAILED = f'registry_http_requests_total{{{CHOSEN}, code=~"5.."}}'
TIME_TO_ANSWER = f"registry_http_request_duration_seconds_bucket{{{CHOSEN}}}"
TIME_OF_STORAGE = f"registry_storage_action_seconds_bucket{{{CHOSEN}}}"
UP = f"up{{{CHOSEN}}}"
MEMORY = f"process_resident_memory_bytes{{{CHOSEN}}}"


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture.

    Attributes:
        title: what stands above it.
        kind: a number over the whole time that is shown, or lines.
        unit: Grafana's name of the unit.
        queries: what is shown, by the name that it has in the legend.
        description: what a reader has to know to read it.
    """

    title: str
    kind: Literal["stat", "timeseries"]
    unit: str
    queries: Mapping[str, str]
    description: str = ""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height on the dashboard's grid."""
        return (4, 4) if self.kind == "stat" else (12, 8)


def dashboard(stack: str, every_s: int) -> str:
    """The dashboard, as Grafana imports it.

    Args:
        stack: the stack that it shows first.
        every_s: how often the caches are asked, in seconds.
    """
    content = {
        "uid": UID,
        "title": "Registry caches",
        "tags": ["registry", "cache"],
        "schemaVersion": SCHEMA,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": list(_variables(stack))},
        "panels": list(_placed(PANELS, every_s)),
    }
    return json.dumps(content, indent=2) + "\n"


def _total(counter: str) -> str:
    return f"sum(increase({counter}[$__range]))"


def _rate(counter: str, by: str) -> str:
    return f"sum by ({by}) (rate({counter}[$__rate_interval]))"


def _quantile(of: float, buckets: str, by: str) -> str:
    return f"histogram_quantile({of}, {_rate(buckets, f'le, {by}')})"


def _number(title: str, unit: str, query: str, description: str = "") -> Panel:
    return Panel(title, "stat", unit, {title: query}, description)


def _lines(title: str, unit: str, queries: Mapping[str, str], description: str = "") -> Panel:
    return Panel(title, "timeseries", unit, queries, description)


PANELS: Sequence[Panel] = (
    _number("Caches that answer", "none", f"sum({UP})"),
    _number("Hit rate", "percentunit", f"{_total(HITS)} / {_total(ASKED)}"),
    _number("Served", "bytes", _total(SERVED)),
    _number("Fetched", "bytes", _total(FETCHED)),
    _number(
        "Saved",
        "bytes",
        f"clamp_min({_total(SERVED)} - {_total(FETCHED)}, 0)",
        "What clients got and the upstream did not have to send.",
    ),
    _number("Errors", "none", f"{_total(FAILED)} or vector(0)", "Answers 500 and above."),
    _lines(
        "Hit rate by upstream",
        "percentunit",
        {"{{upstream}}": f"{_rate(HITS, 'upstream')} / {_rate(ASKED, 'upstream')}"},
        "Blobs and manifests that the cache had when it was asked.",
    ),
    _lines(
        "Served and fetched, by upstream",
        "Bps",
        {
            "{{upstream}} served": _rate(SERVED, "upstream"),
            "{{upstream}} fetched": _rate(FETCHED, "upstream"),
        },
        "A request for a part of a blob counts as one for the whole.",
    ),
    _lines(
        "Served and fetched, by node",
        "Bps",
        {"{{node}} served": _rate(SERVED, "node"), "{{node}} fetched": _rate(FETCHED, "node")},
        "Of a service, a node is the address of its task in the stack's network.",
    ),
    _lines("Answers by code", "reqps", {"{{code}}": _rate(ANSWERED, "code")}),
    _lines(
        "Time to answer",
        "s",
        {
            "{{handler}} 50 %": _quantile(0.5, TIME_TO_ANSWER, "handler"),
            "{{handler}} 95 %": _quantile(0.95, TIME_TO_ANSWER, "handler"),
        },
        "That of a blob has the time that the client takes to read it.",
    ),
    _lines(
        "Errors by upstream and node",
        "reqps",
        {
            "{{upstream}} {{node}}": f"{_rate(FAILED, 'upstream, node')} "
            f"or 0 * sum by (upstream, node) ({UP})"
        },
        "Answers 500 and above: the storage or the upstream failed.",
    ),
    _lines(
        "Time that the storage takes",
        "s",
        {"{{action}} 95 %": _quantile(0.95, TIME_OF_STORAGE, "action")},
    ),
    _lines("Memory", "bytes", {"{{upstream}} {{node}}": f"sum by (upstream, node) ({MEMORY})"}),
)


def _variables(stack: str) -> Iterator[Mapping[str, Any]]:
    yield {
        "type": "datasource",
        "name": "datasource",
        "label": "Data source",
        "query": "prometheus",
    }
    yield {
        **_variable("stack", "label_values(up, stack)"),
        "current": {"text": stack, "value": stack},
    }
    for name in ("upstream", "node"):
        yield {
            **_variable(name, f'label_values(up{{stack="$stack"}}, {name})'),
            "multi": True,
            "includeAll": True,
            "current": {"text": ["All"], "value": ["$__all"]},
        }


def _variable(name: str, query: str) -> Mapping[str, Any]:
    return {
        "type": "query",
        "name": name,
        "label": name.capitalize(),
        "datasource": DATASOURCE,
        "query": query,
        # Whenever the time that is shown changes: nodes come and go.
        "refresh": 2,
        "sort": 1,
    }


def _placed(panels: Sequence[Panel], every_s: int) -> Iterator[Mapping[str, Any]]:
    """Panels from left to right and from top to bottom, as letters on a page."""
    x = y = 0
    for number, panel in enumerate(panels, start=1):
        width, height = panel.size
        yield {
            "id": number,
            "type": panel.kind,
            "title": panel.title,
            "description": panel.description,
            "datasource": DATASOURCE,
            "interval": f"{every_s}s",
            "gridPos": {"x": x, "y": y, "w": width, "h": height},
            "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
            "targets": [
                {
                    "refId": chr(ord("A") + place),
                    "datasource": DATASOURCE,
                    "expr": query,
                    "legendFormat": legend,
                    "instant": panel.kind == "stat",
                    "range": panel.kind == "timeseries",
                }
                for place, (legend, query) in enumerate(panel.queries.items())
            ],
        }
        x += width
        if x == COLUMNS:
            x, y = 0, y + height
