"""The patch that `cachectl mirrors` prints, in the real talosctl of two generations."""

import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from components.certificate_authority import issue_authority
from talos_registry_cache.cli import mirror_formats
from talos_registry_cache.endpoint import Endpoint
from talos_registry_cache.talos.machine_config import MirrorForm

CA = issue_authority("tests", datetime.now(UTC)).certificate
MIRRORS = {
    "docker.io": Endpoint("http://172.17.0.1:5000"),
    "localhost:5005": Endpoint("https://172.17.0.1:5001", CA, "adam", "s3cret"),
}
WITHIN_S = 300


@pytest.mark.parametrize(
    ("program", "form"),
    [("talosctl-1.11", MirrorForm.LEGACY), ("talosctl-1.13", MirrorForm.DOCUMENT)],
)
def test_talosctl_accepts_the_patch_and_validates_the_machine_configuration(
    tmp_path: Path, program: str, form: MirrorForm
) -> None:
    assert shutil.which(program), f"{program} is not on PATH; run the tests by `make test`"
    [content] = mirror_formats.talos(MIRRORS, form).values()
    (tmp_path / "mirrors.yaml").write_text(content)

    _run(
        tmp_path, program, "gen", "config", "demo", "https://10.5.0.2:6443",
        "--config-patch", "@mirrors.yaml", "--output", "made",
    )  # fmt: skip
    _run(tmp_path, program, "validate", "--mode", "container", "--config", "made/worker.yaml")

    made = (tmp_path / "made" / "worker.yaml").read_text()
    assert all(mirror.url in made for mirror in MIRRORS.values())
    assert "password: s3cret" in made


def _run(folder: Path, *command: str) -> None:
    done = subprocess.run(
        command,
        cwd=folder,
        env={"HOME": str(folder), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
        timeout=WITHIN_S,
        executable=shutil.which(command[0]),
    )
    assert done.returncode == 0, done.stderr
