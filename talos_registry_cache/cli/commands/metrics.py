"""cachectl metrics: Prometheus and Grafana show what the caches of all nodes do."""

from typing import Annotated

import typer

from talos_registry_cache.cli import dashboard, options, output, prometheus, stack


def metrics(
    *,
    folder: output.Folder = None,
    every_s: Annotated[
        int,
        typer.Option("--every", min=1, metavar="SECONDS", help="How often each cache is asked."),
    ] = 15,
    stack_name: options.StackName = None,
) -> None:
    """Print the configuration with which Prometheus collects what the caches count.

    prometheus.yml names each cache, on all nodes that run it; rules.yml has alerts; and
    registry-caches.json is a dashboard for Grafana, which asks that Prometheus.

    What caches count can be asked in the network of their stack only, registry-NAME, so that is
    where Prometheus has to run.

    Exit codes: 0 printed or written, 1 it could not be written, 2 wrong usage.
    """
    with stack.engine() as client:
        found = stack.find(client, stack_name)
        node = client.info()["Name"]
    caches = found.caches.items()
    targets = prometheus.Targets(
        stack=found.name,
        containers={registry: one.name for registry, one in caches if not one.is_service},
        services={registry: one.name for registry, one in caches if one.is_service},
        node=node,
    )
    files = {
        prometheus.CONFIGURATION: prometheus.configuration(targets, every_s),
        prometheus.RULES: prometheus.rules(found.name),
        dashboard.FILE: dashboard.dashboard(found.name, every_s),
    }
    output.put(files, folder)
