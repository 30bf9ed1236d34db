"""Warms caches in a process of its own, to see how much memory that takes.

Usage: python -m benchmarks.support.warming HOST=URL..., which prints the peak in MB.
"""

import asyncio
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.support.commands import run
from benchmarks.support.image_set import REFERENCES
from components.image_set import ARCHITECTURES
from talos_registry_cache.registry import reference
from talos_registry_cache.registry.platforms import Platform
from talos_registry_cache.registry.warm import NotWarmed, warm


def peak_mb(endpoints: Mapping[str, str]) -> float:
    """Warm caches in a process of its own; the most memory that it had, in MB."""
    pairs = [f"{host}={url}" for host, url in endpoints.items()]
    return float(run(sys.executable, "-m", "benchmarks.support.warming", *pairs))


def main(arguments: Sequence[str]) -> None:
    """Warm, and print the peak."""
    endpoints = dict(pair.split("=", 1) for pair in arguments)
    machine = platform.machine()
    node = Platform("linux", ARCHITECTURES.get(machine, machine))
    for outcome in asyncio.run(warm(map(reference.parse, REFERENCES), endpoints, node)):
        if isinstance(outcome, NotWarmed):
            sys.exit(f"{outcome.reference}: {outcome.errors}")
    # Not getrusage: its peak begins with that of the process that started this one.
    status = Path("/proc/self/status").read_text()
    (peak,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    print(int(peak.split()[1]) * 1024 / 1_000_000)


if __name__ == "__main__":
    main(sys.argv[1:])
