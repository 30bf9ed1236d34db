"""cachectl metrics: the files that let Prometheus and Grafana monitor the caches."""

from pathlib import Path

import talos_registry_cache
from talos_registry_cache.cli import output


def metrics(*, folder: output.Folder = None) -> None:
    """Print the monitoring files, the same for every stack.

    prometheus.yml finds the caches of a Docker engine and asks `cachectl exporter` what their
    clients get; prometheus-swarm.yml finds those of a Swarm; rules.yml has alerts, and
    dashboard.json is for Grafana.

    Exit codes: 0 printed or written, 1 the files cannot be written, 2 wrong usage.
    """
    files = sorted(monitoring_folder().iterdir())
    output.put({file.name: file.read_text() for file in files}, folder)


def monitoring_folder() -> Path:
    """The folder with the files: inside an installed package, and beside it in a checkout."""
    package = Path(talos_registry_cache.__file__).parent
    installed = package / "monitoring"
    return installed if installed.is_dir() else package.parent / "monitoring"
