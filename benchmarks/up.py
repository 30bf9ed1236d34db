"""How long `pulumi up` takes, beside the guide's own command lines and an empty program.

Run it by `make bench`. All figures come from one run on one machine, each the median of five, the
candidates in turn, so that what slows the machine down slows them all. It makes stacks, containers
and volumes of its own, on ports from 5200 on, and removes them.
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import docker

from benchmarks.support.commands import run
from benchmarks.support.pulumi_stack import Config, Stack
from benchmarks.support.session import CannotRunError
from components.settings.caches import DEFAULT_IMAGE
from talos_registry_cache.engine import registry_image

ROUNDS = 5
FIRST_PORT = 5200


def main() -> None:
    """Measure, and print a table and the ratios."""
    with tempfile.TemporaryDirectory() as folder:
        empty_program = Path(folder) / "empty-program"
        empty_program.mkdir()
        (empty_program / "__main__.py").write_text("import pulumi\n")
        empty = Stack("bench-empty", Path(folder) / "empty")
        five = Stack("bench-five", Path(folder) / "five")
        fifty = Stack("bench-fifty", Path(folder) / "fifty")
        empty.prepare({}, empty_program)
        five.prepare(_caches(upstreams=5))
        fifty.prepare(_caches(upstreams=50))
        try:
            _report(_measure(empty, five, fifty))
        finally:
            guide_down()
            five.down()
            fifty.down()


def _caches(upstreams: int) -> Config:
    hosts = {
        f"upstream-{number}.example": {
            "port": FIRST_PORT + number,
            "remoteUrl": f"https://upstream-{number}.example",
        }
        for number in range(upstreams)
    }
    return {"caches": {"upstreams": hosts, "storage": {"onDestroy": "delete"}}}


def _measure(empty: Stack, five: Stack, fifty: Stack) -> Mapping[str, list[float]]:
    figures: dict[str, list[float]] = {}

    def measure(title: str, call: Callable[[], None]) -> None:
        print(f"    {title}", end=" ", file=sys.stderr, flush=True)
        started = time.monotonic()
        call()
        figures.setdefault(title, []).append(time.monotonic() - started)
        print(f"{figures[title][-1]:.2f} s", file=sys.stderr, flush=True)

    empty.up()
    for _ in range(ROUNDS):
        measure("guide", guide_up)
        guide_down()
        measure("up", five.up)
        measure("no-op", five.up)
        measure("empty", empty.up)
        figures.setdefault("memory", []).extend(_memory_mib("bench-five"))
        five.down()
    fifty.up()
    for _ in range(ROUNDS):
        measure("no-op of 50", fifty.up)
    fifty.down()
    return figures


def guide_up() -> None:
    """The guide's command lines for five upstreams, one after another.

    The image is that of the stack, and a credential command lets it start without network.
    """
    client = docker.from_env()
    image = registry_image.on_engine(client, DEFAULT_IMAGE)
    client.close()
    for number in range(5):
        run(
            "docker", "run", "-d", "-p", f"{FIRST_PORT + number}:5000",
            "-e", f"REGISTRY_PROXY_REMOTEURL=https://upstream-{number}.example",
            "-e", "REGISTRY_PROXY_EXEC_COMMAND=/bin/true",
            "--restart", "always", "--name", f"bench-guide-{number}", image,
        )  # fmt: skip


def guide_down() -> None:
    """The guide's clean-up."""
    names = [f"bench-guide-{number}" for number in range(5)]
    subprocess.run(["docker", "rm", "-f", "-v", *names], capture_output=True, check=False)


def _memory_mib(stack: str) -> list[float]:
    """Memory of each running cache of a stack, without the page cache, in MiB."""
    listed = run("docker", "ps", "-q", "--filter", f"label=talos-registry-cache.stack={stack}")
    shown = run("docker", "stats", "--no-stream", "--format", "{{.MemUsage}}", *listed.split())
    return [float(line.split("MiB")[0]) for line in shown.splitlines()]


def _report(figures: Mapping[str, list[float]]) -> None:
    median = {title: statistics.median(values) for title, values in figures.items()}
    rows = [
        ("the guide's five `docker run` lines, started", median["guide"], None),
        ("up from nothing, healthy", median["up"], ("guide", 1.8)),
        ("an empty Pulumi program's up", median["empty"], None),
        ("no-op up", median["no-op"], ("empty", 1.4)),
        ("no-op up of 50 upstreams", median["no-op of 50"], ("no-op", 2.0)),
    ]
    print(f"\nmedians of {ROUNDS}, {os.cpu_count()} cores")
    for title, seconds, against in rows:
        ratio = ""
        if against:
            base, goal = against
            ratio = f"  {seconds / median[base]:.2f}x of {base} (goal at most {goal}x)"
        print(f"{title:46} {seconds:6.2f} s{ratio}")
    print(f"{'memory of an idle cache':46} {median['memory']:6.1f} MiB (goal under 25)")


if __name__ == "__main__":
    if not shutil.which("pulumi"):
        sys.exit("run this by `make bench`")
    try:
        main()
    except CannotRunError as error:
        sys.exit(str(error))
