"""`make demo` prints a correct comparison, and `make recording` shows commands that ran.

Both leave nothing behind.
"""

import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from docker import DockerClient

from tests.integration.support.polling import eventually
from tests.integration.support.processes import run
from tests.integration.support.stack import ROOT

DEMO = (sys.executable, "-m", "benchmarks.demo", "--small")
RECORDING = (sys.executable, "-m", "benchmarks.recording", "--small")
# Longer than its own time limit.
WITHIN_S = 900
PNG = b"\x89PNG\r\n"

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("tc") or not shutil.which("nsenter"),
    reason="limiting the link of a container needs root, tc and nsenter",
)


def test_our_caches_fetch_one_copy_and_those_of_the_guide_several(
    engine: DockerClient, tmp_path: Path
) -> None:
    name = _name()

    table = run(*DEMO, "--name", name, "--into", tmp_path, within_s=WITHIN_S, cwd=ROOT)

    guide, undeclared, ours = _row(table, "upstream bytes, cold, in copies")
    assert undeclared == ours == "1.00x"
    # The number depends on timing.
    assert float(guide.removesuffix("x")) > 1
    _, undeclared, ours = _row(table, "upstream bytes, warm")
    # Nodes ask for a layer of two repositories in either, and it is fetched once for each.
    assert float(undeclared.removesuffix(" MB")) < 1
    assert ours == "0.0 MB"
    assert (tmp_path / "demo.md").read_text() in table
    assert (tmp_path / "demo.png").read_bytes().startswith(PNG)
    assert _made(engine, name) == []


def test_a_recording_shows_what_the_commands_printed(engine: DockerClient, tmp_path: Path) -> None:
    name, file = _name(), tmp_path / "terminal.svg"

    run(*RECORDING, "--name", name, "--into", file, within_s=WITHIN_S, cwd=ROOT)

    drawing = ET.parse(file)  # noqa: S314 - made by this test
    shown = [text.replace("\N{NO-BREAK SPACE}", " ") for text in drawing.getroot().itertext()]
    for pattern in (
        r"pulumi up --yes +# .*",
        r"\+ \d+ created",
        r"cachectl warm .*",
        r" *ghcr\.io/siderolabs/kubelet:\S+ +fetched .*",
        r" *total( +\d+){5} .*",
        r" *registry\.k8s\.io +healthy .* reach it +reachable .* MB",
    ):
        assert any(re.fullmatch(pattern, text) for text in shown), pattern
    # Nothing of this machine, and no cell is cut.
    assert not [text for text in shown if str(ROOT) in text or str(Path.home()) in text]
    assert not [text for text in shown if "…" in text]
    assert _made(engine, name) == []


@pytest.mark.parametrize(
    ("command", "step", "part"),
    [
        (DEMO, "the guide's way", "ghcr.io"),
        (DEMO, "this project", "anonymous"),
        (DEMO, "this project", "ghcr.io"),
        (RECORDING, "pulumi up", "ghcr.io"),
    ],
)
def test_an_interrupt_leaves_nothing(
    engine: DockerClient, tmp_path: Path, command: Sequence[str], step: str, part: str
) -> None:
    name, log = _name(), tmp_path / "log"
    with log.open("wb") as output:
        demo = subprocess.Popen(
            [*command, "--name", name, "--into", tmp_path], cwd=ROOT, stdout=output, stderr=output
        )
    try:
        eventually(
            lambda: (
                f"==> {step}" in log.read_text()
                and any(part in made for made in _made(engine, name))
            ),
            within_s=WITHIN_S,
            what=f"the demo has reached {step}",
        )
        demo.send_signal(signal.SIGINT)
        assert demo.wait(WITHIN_S) == 130
    finally:
        demo.kill()

    assert "interrupted; everything that was created is removed" in log.read_text()
    assert "Traceback" not in log.read_text()
    assert _made(engine, name) == []


def test_missing_requirements_are_named(tmp_path: Path) -> None:
    done = subprocess.run(
        [*DEMO, "--into", tmp_path],
        cwd=ROOT,
        env={**os.environ, "PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=WITHIN_S,
    )

    assert done.returncode == 1
    assert "this machine lacks: nsenter on PATH; tc on PATH; pulumi on PATH" in done.stderr
    assert "Traceback" not in done.stderr


def _name() -> str:
    return f"it-demo-{secrets.token_hex(4)}"


def _row(table: str, title: str) -> list[str]:
    """The values of a row: the guide's, and ours without and with declared images."""
    found = re.search(rf"^\| {re.escape(title)} \| (.+) \|$", table, re.MULTILINE)
    assert found is not None, table
    return found[1].split(" | ")


def _made(engine: DockerClient, name: str) -> list[str]:
    """Everything on the engine that has the demo's name in its own name or labels."""
    containers = engine.containers.list(all=True, ignore_removed=True)
    names = [
        *(f"{container.name} {container.labels}" for container in containers),
        *(str(network.name) for network in engine.networks.list()),
        *(str(volume.name) for volume in engine.volumes.list()),
    ]
    return [made for made in names if name in made]
