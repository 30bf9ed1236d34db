"""What Prometheus needs to collect what caches count, and to say when one is ill.

Formats: prometheus.io, "Configuration" and "Alerting rules". Caches count on a port that is open to
the network of their stack only, so that Prometheus has to be in there.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from talos_registry_cache.cli import node_metrics

CONFIGURATION = "prometheus.yml"
RULES = "rules.yml"


@dataclass(frozen=True, slots=True)
class Targets:
    """The caches of a stack.

    Attributes:
        stack: its name.
        containers: the name of each container, by registry host.
        services: the name of each service, by registry host.
        node: the host name of the engine that runs the containers.
    """

    stack: str
    containers: Mapping[str, str]
    services: Mapping[str, str]
    node: str


def configuration(targets: Targets, every_s: int) -> str:
    """What prometheus.yml has.

    Each sample tells its `stack`, its `upstream` and its `node`. That of a service is the address
    of its task in the stack's network: nothing in there tells more of it.

    Args:
        targets: what is asked.
        every_s: how often, in seconds.
    """
    jobs = [
        *(_of_container(targets, host, name) for host, name in targets.containers.items()),
        *(_of_service(targets, host, name, every_s) for host, name in targets.services.items()),
    ]
    often = f"{every_s}s"
    return _yaml(
        {
            "global": {"scrape_interval": often, "evaluation_interval": often},
            "rule_files": [RULES],
            "scrape_configs": jobs,
        }
    )


def rules(stack: str) -> str:
    """What rules.yml has: when somebody should look at a stack's caches."""
    up = f'count by (stack, upstream) (up{{stack="{stack}"}} == 1)'
    answers = "registry_http_requests_total"
    failed, all_of_them = (
        f"sum by (stack, upstream) (rate({answers}{{{labels}}}[5m]))"
        for labels in (f'stack="{stack}", code=~"5.."', f'stack="{stack}"')
    )
    return _yaml(
        {
            "groups": [
                {
                    "name": f"registry-caches-{stack}",
                    "rules": [
                        _alert(
                            "RegistryCacheDown",
                            # What has gone from the DNS of a Swarm has no `up` any more.
                            "count by (stack, upstream) "
                            f'(last_over_time(up{{stack="{stack}"}}[1d])) unless {up}',
                            "1m",
                            "No cache of {{ $labels.upstream }} answers in {{ $labels.stack }}.",
                        ),
                        _alert(
                            "RegistryCacheNodeMissing",
                            f"{up} < max_over_time(({up})[1h:])",
                            "5m",
                            "Only {{ $value }} caches of {{ $labels.upstream }} answer in "
                            "{{ $labels.stack }}; in the last hour, there were more.",
                        ),
                        _alert(
                            "RegistryCacheFails",
                            f"{failed} / {all_of_them} > 0.05",
                            "5m",
                            "{{ $value | humanizePercentage }} of what is asked of the cache of "
                            "{{ $labels.upstream }} in {{ $labels.stack }} ends with an error: "
                            "see whether its storage is there.",
                        ),
                    ],
                }
            ]
        }
    )


def _of_container(targets: Targets, host: str, name: str) -> Mapping[str, Any]:
    labels = {"stack": targets.stack, "upstream": host, "node": targets.node}
    return {
        "job_name": name,
        "static_configs": [{"targets": [f"{name}:{node_metrics.PORT}"], "labels": labels}],
    }


def _of_service(targets: Targets, host: str, name: str, every_s: int) -> Mapping[str, Any]:
    """A Swarm's DNS has the address of every task of a service that runs."""
    return {
        "job_name": name,
        "dns_sd_configs": [
            {
                "names": [f"tasks.{name}"],
                "type": "A",
                "port": node_metrics.PORT,
                "refresh_interval": f"{every_s}s",
            }
        ],
        "relabel_configs": [
            {"target_label": "stack", "replacement": targets.stack},
            {"target_label": "upstream", "replacement": host},
            {"source_labels": ["__address__"], "regex": r"(.+):\d+", "target_label": "node"},
        ],
    }


def _alert(name: str, when: str, lasting: str, summary: str) -> Mapping[str, Any]:
    return {"alert": name, "expr": when, "for": lasting, "annotations": {"summary": summary}}


def _yaml(content: Mapping[str, Any]) -> str:
    return yaml.safe_dump(content, sort_keys=False, width=200)
