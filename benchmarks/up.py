"""How long `pulumi up` takes, compared with the guide's command lines and an empty Pulumi program.

Also measures parts of it that the program cannot avoid: ten `docker run` lines, since a cache has
two containers; the imports of the program; and Pulumi's own list of installed packages.

Run by `make bench`. The candidates take turns on one machine, so that what slows it down slows all
of them. Creates stacks, containers and volumes on ports from 5200 on, and removes them. The table
is written to build/.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import median

import docker

from benchmarks.support import table
from benchmarks.support.commands import run
from benchmarks.support.pulumi_stack import Config, Stack
from benchmarks.support.session import CannotRunError
from components.settings.caches import DEFAULT_IMAGE
from talos_registry_cache.engine import registry_image
from toolchain.report import say

ROUNDS = 5
FIRST_PORT = 5200
GUIDE = [f"bench-guide-{number}" for number in range(10)]
# As the language host of Pulumi 3 calls pip at the start of each command.
LIST_PACKAGES = ("-m", "pip", "list", "-v", "--format", "json")
IMPORTS = "import pulumi; from components import image_set, registry_cache, settings, talos_cluster"


def main(rounds: int) -> None:
    """Measure and write."""
    figures: dict[str, list[float]] = defaultdict(list)

    def measure(title: str, call: Callable[[], object]) -> None:
        started = time.monotonic()
        call()
        figures[title].append(time.monotonic() - started)
        say(f"    {title}: {figures[title][-1]:.2f} s")

    with tempfile.TemporaryDirectory() as folder:
        empty_program = Path(folder) / "empty-program"
        empty_program.mkdir()
        (empty_program / "__main__.py").write_text("import pulumi\n")
        empty = Stack("bench-empty", Path(folder) / "empty")
        empty.prepare({}, empty_program)
        empty.up()
        five = Stack("bench-five", Path(folder) / "five")
        five.prepare(_caches(5))
        fifty = Stack("bench-fifty", Path(folder) / "fifty")
        fifty.prepare(_caches(50))
        try:
            for _ in range(rounds):
                measure("guide", lambda: guide_up(5))
                guide_down()
                measure("ten", lambda: guide_up(10))
                guide_down()
                measure("imports", lambda: run(sys.executable, "-c", IMPORTS))
                measure("packages", lambda: run(sys.executable, *LIST_PACKAGES))
                measure("up", five.up)
                measure("no-op", five.up)
                measure("empty", empty.up)
                five.down()
            fifty.up()
            for _ in range(rounds):
                measure("no-op of 50", fifty.up)
        finally:
            guide_down()
            five.down()
            fifty.down()
    _report({title: median(values) for title, values in figures.items()}, rounds)


def _caches(upstreams: int) -> Config:
    hosts = {
        f"upstream-{number}.example": {
            "port": FIRST_PORT + number,
            "remoteUrl": f"https://upstream-{number}.example",
        }
        for number in range(upstreams)
    }
    return {"caches": {"upstreams": hosts, "storage": {"onDestroy": "delete"}}}


def guide_up(upstreams: int) -> None:
    """Run the guide's command lines for some upstreams, one after another.

    The image is the stack's, and a credential command lets it start without network.
    """
    client = docker.from_env()
    image = registry_image.on_engine(client, DEFAULT_IMAGE)
    client.close()
    for number, name in enumerate(GUIDE[:upstreams]):
        run(
            "docker", "run", "-d", "-p", f"{FIRST_PORT + number}:5000",
            "-e", f"REGISTRY_PROXY_REMOTEURL=https://upstream-{number}.example",
            "-e", "REGISTRY_PROXY_EXEC_COMMAND=/bin/true",
            "--restart", "always", "--name", name, image,
        )  # fmt: skip


def guide_down() -> None:
    """Remove the guide's containers."""
    subprocess.run(["docker", "rm", "-f", "-v", *GUIDE], capture_output=True, check=False)


def _report(took: dict[str, float], rounds: int) -> None:
    rows = [
        ("the guide's five `docker run` lines", "guide", None, None),
        ("ten such lines", "ten", "guide", None),
        ("`up` from nothing, healthy", "up", "guide", 1.8),
        ("`up` of an empty Pulumi program", "empty", None, None),
        ("`up` with nothing to do", "no-op", "empty", 1.35),
        ("`up` with nothing to do, 50 upstreams", "no-op of 50", "no-op", 2.2),
        ("Python with the imports of the program", "imports", "empty", None),
        ("Pulumi's list of installed packages", "packages", "empty", None),
    ]
    lines = [
        [
            text,
            f"{took[title]:.2f} s",
            f"{took[title] / took[base]:.2f}x of {base}" if base else "",
            f"at most {goal}x" if goal else "",
        ]
        for text, title, base, goal in rows
    ]
    note = f"Medians of {rounds} rounds, on {table.machine()}.\n\n"
    table.write("bench-up.md", note + table.markdown(["", "time", "ratio", "goal"], lines))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.up", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    given = parser.parse_args()
    if not shutil.which("pulumi"):
        sys.exit("run this by `make bench`")
    try:
        main(given.rounds)
    except CannotRunError as error:
        sys.exit(str(error))
