"""The programs in examples/, in three languages, on the real engine."""

import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from docker import DockerClient

from tests.integration.support import belongings, host, package_host, processes
from tests.integration.support.stack import PASSPHRASE, ROOT

PULUMI_WITHIN_S = 150
INSTALLED_WITHIN_S = 300
PACKAGE = "talos-registry-cache"
PASSWORD = "hunter2"  # noqa: S105

pytestmark = pytest.mark.timeout(1500)


@dataclass(frozen=True, slots=True)
class Example:
    """A copy of an example, as a stack of its own."""

    folder: Path
    stack: str
    port: int
    engine: DockerClient
    env: Mapping[str, str]

    def pulumi(self, *arguments: str) -> str:
        """Run Pulumi on it, and return what it printed."""
        line = ("pulumi", "--non-interactive", *arguments, "--stack", self.stack)
        return processes.run(*line, within_s=PULUMI_WITHIN_S, env=self.env, cwd=self.folder)

    def check(self) -> None:
        """Preview it, bring it up, and find nothing more to do."""
        assert "create" in self.pulumi("preview")
        self.pulumi("up", "--yes", "--skip-preview")
        outputs: Mapping[str, Any] = json.loads(self.pulumi("stack", "output", "--json"))
        mirror = outputs["mirrors"]["quay.io"]
        assert mirror.endswith(f":{self.port}")
        assert outputs["talosctlFlags"] == f"--registry-mirror quay.io={mirror}"
        found = belongings.of_stack(self.engine, self.stack)
        assert f"registry-{self.stack}-quay.io" in found.containers
        self.pulumi("up", "--yes", "--skip-preview", "--expect-no-changes")

    def destroy(self) -> None:
        """Destroy it."""
        self.pulumi("destroy", "--yes", "--skip-preview")
        assert not belongings.of_stack(self.engine, self.stack).containers


@pytest.fixture
def example(
    request: pytest.FixtureRequest, tmp_path: Path, engine: DockerClient
) -> Iterator[Example]:
    """A copy of the example that is asked for, with a name and a port of its own."""
    folder = tmp_path / "example"
    shutil.copytree(ROOT / "examples" / request.param, folder)
    project = folder / "Pulumi.yaml"
    project.write_text(project.read_text().replace("../../components", str(ROOT / "components")))
    tools, state = tmp_path / "tools", tmp_path / "state"
    for made in (tools, state):
        made.mkdir()
    env = {
        **os.environ,
        "PATH": os.pathsep.join([str(tools), os.environ["PATH"]]),
        "PULUMI_BACKEND_URL": state.as_uri(),
        "PULUMI_CONFIG_PASSPHRASE": PASSPHRASE,
    }
    stack = f"ex-{os.urandom(4).hex()}"
    made_example = Example(folder, stack, host.free_port(), engine, env)
    made_example.pulumi("stack", "init")
    made_example.pulumi("config", "set", "port", str(made_example.port))
    try:
        yield made_example
    finally:
        belongings.remove(engine, stack)


@pytest.mark.parametrize("example", ["python"], indirect=True)
def test_a_program_in_python_installs_the_package_and_imports_it(example: Example) -> None:
    uv = (sys.executable, "-m", "uv", "--quiet")
    venv = example.folder / ".venv"
    processes.run(*uv, "venv", "--seed", "--python", sys.executable, str(venv))
    requirements = (example.folder / "requirements.txt").read_text().replace("../..", str(ROOT))
    (example.folder / "requirements.txt").write_text(requirements)
    locked = ("--constraints", str(ROOT / "requirements.txt"), "-r", "requirements.txt")
    install = ("pip", "install", "--python", str(venv / "bin" / "python"), *locked)
    processes.run(*uv, *install, within_s=INSTALLED_WITHIN_S, cwd=example.folder)
    # The language host of the toolchain is older than the option in Pulumi.yaml that says so.
    path = os.pathsep.join([str(venv / "bin"), example.env["PATH"]])
    installed = replace(example, env={**example.env, "PATH": path})

    installed.check()
    installed.destroy()


@pytest.mark.parametrize("example", ["yaml"], indirect=True)
def test_a_program_in_yaml_uses_the_package(example: Example, tmp_path: Path) -> None:
    package_host.install(tmp_path / "tools")
    example.pulumi("config", "set", "username", "me")
    example.pulumi("config", "set", "--secret", "password", PASSWORD)

    example.check()

    assert PASSWORD not in example.pulumi("stack", "export")
    wrong = example.folder / "Pulumi.yaml"
    wrong.write_text(wrong.read_text().replace("port: ${port}", "port: 99999"))
    with pytest.raises(processes.CommandFailedError, match=r'upstreams\["quay\.io"\]\.port'):
        example.pulumi("preview")
    example.destroy()


@pytest.mark.parametrize("example", ["typescript"], indirect=True)
def test_a_program_in_typescript_uses_the_package(example: Example, tmp_path: Path) -> None:
    package_host.install(tmp_path / "tools")
    # What `pulumi package add` does, for which the language host of the toolchain is too old.
    line = ("pulumi", "--non-interactive", "package", "get-schema", ROOT / "components")
    schema = processes.run(*line, within_s=PULUMI_WITHIN_S, env=example.env, cwd=example.folder)
    (tmp_path / "schema.json").write_text(schema)
    sdk = example.folder / "sdks" / PACKAGE
    generate = f"pulumi-sdk-nodejs {sdk} < {tmp_path / 'schema.json'}"
    processes.run("sh", "-c", generate, env=example.env)
    npm = ("npm", "install", "--no-audit", "--no-fund", "--prefer-offline")
    processes.run(*npm, within_s=INSTALLED_WITHIN_S, cwd=example.folder)

    example.check()
    example.destroy()
