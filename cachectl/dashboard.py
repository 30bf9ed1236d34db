"""A dashboard of Grafana that shows the caches of stacks: what they save, serve, and suffer.

Metrics: distribution 3.1, registry/proxy/proxymetrics.go, registry/storage/driver/base/base.go and
the HTTP handler of go-metrics. Labels: cachectl/prometheus.py. Format: JSON model of a dashboard of
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
# Health checks are requests of the base.
ASKED = f'registry_http_requests_total{{{CHOSEN}, handler!="base"}}'
FAILED = f'registry_http_requests_total{{{CHOSEN}, code=~"5.."}}'


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


def _sum(metric: str, by: str = "") -> str:
    return f"sum{f' by ({by}) ' if by else ''}({metric})"


def _total(counter: str, labels: str = CHOSEN) -> str:
    return _sum(f"increase({counter}{{{labels}}}[$__range])")


def _rate(counter: str, by: str) -> str:
    return _sum(f"rate({counter}{{{CHOSEN}}}[$__rate_interval])", by)


def _quantile(of: float, histogram: str, by: str) -> str:
    return f"histogram_quantile({of}, {_rate(f'{histogram}_bucket', f'le, {by}')})"


_SERVED, _FETCHED = "registry_proxy_pushed_bytes_total", "registry_proxy_pulled_bytes_total"
_HITS, _ASKED_FOR = "registry_proxy_hits_total", "registry_proxy_requests_total"
_LATENCY, _STORAGE = "registry_http_request_duration_seconds", "registry_storage_action_seconds"

PANELS: Sequence[Panel] = (
    Panel("Caches that answer", "stat", "none", {"caches": _sum(f"up{{{CHOSEN}}}")}),
    Panel("Hit rate", "stat", "percentunit", {"hits": f"{_total(_HITS)} / {_total(_ASKED_FOR)}"}),
    Panel("Served", "stat", "bytes", {"served": _total(_SERVED)}),
    Panel("From upstream", "stat", "bytes", {"fetched": _total(_FETCHED)}),
    Panel(
        "Saved",
        "stat",
        "bytes",
        {"saved": f"clamp_min({_total(_SERVED)} - {_total(_FETCHED)}, 0)"},
        "What clients got and the upstream did not have to send.",
    ),
    Panel(
        "Errors",
        "stat",
        "none",
        {"errors": f"{_sum(f'increase({FAILED}[$__range])')} or vector(0)"},
    ),
    Panel(
        "Hit rate by upstream",
        "timeseries",
        "percentunit",
        {"{{upstream}}": f"{_rate(_HITS, 'upstream')} / {_rate(_ASKED_FOR, 'upstream')}"},
        "Blobs and manifests that the cache had when it was asked.",
    ),
    Panel(
        "Served and fetched, by upstream",
        "timeseries",
        "Bps",
        {
            "{{upstream}} served": _rate(_SERVED, "upstream"),
            "{{upstream}} fetched": _rate(_FETCHED, "upstream"),
        },
        "A request for a part of a blob counts as one for the whole.",
    ),
    Panel(
        "Served and fetched, by node",
        "timeseries",
        "Bps",
        {"{{node}} served": _rate(_SERVED, "node"), "{{node}} fetched": _rate(_FETCHED, "node")},
        "Of a service, a node is the address of its task in the stack's network.",
    ),
    Panel(
        "Answers by code",
        "timeseries",
        "reqps",
        {"{{code}}": _sum(f"rate({ASKED}[$__rate_interval])", "code")},
    ),
    Panel(
        "Time to answer",
        "timeseries",
        "s",
        {
            "{{handler}} 50 %": _quantile(0.5, _LATENCY, "handler"),
            "{{handler}} 95 %": _quantile(0.95, _LATENCY, "handler"),
        },
        "That of a blob has the time that the client takes to read it.",
    ),
    Panel(
        "Errors by upstream and node",
        "timeseries",
        "reqps",
        {
            "{{upstream}} {{node}}": (
                f"{_sum(f'rate({FAILED}[$__rate_interval])', 'upstream, node')} "
                f"or 0 * {_sum(f'up{{{CHOSEN}}}', 'upstream, node')}"
            )
        },
        "Answers 500 and above: the storage or the upstream failed.",
    ),
    Panel(
        "Time that the storage takes",
        "timeseries",
        "s",
        {"{{action}} 95 %": _quantile(0.95, _STORAGE, "action")},
    ),
    Panel(
        "Memory",
        "timeseries",
        "bytes",
        {
            "{{upstream}} {{node}}": _sum(
                f"process_resident_memory_bytes{{{CHOSEN}}}", "upstream, node"
            )
        },
    ),
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
