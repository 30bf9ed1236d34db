"""The wheel in an empty virtual environment."""

import os
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.support import processes
from tests.integration.support.processes import CommandFailedError
from tests.integration.support.stack import ROOT

VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
INSTALLED_WITHIN_S = 200
UV = (sys.executable, "-m", "uv", "--quiet")

pytestmark = pytest.mark.timeout(500)


@dataclass(frozen=True, slots=True)
class Environment:
    """A virtual environment with only the wheel and its dependencies."""

    folder: Path

    def run(self, program: str, *arguments: str) -> str:
        """Run one of its programs outside the checkout."""
        line = (self.folder / "bin" / program, *arguments)
        return processes.run(*map(str, line), cwd=self.folder)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    options = ("--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder))
    processes.run(sys.executable, "-m", "pip", "wheel", *options, str(ROOT))
    (made,) = folder.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    folder = tmp_path_factory.mktemp("environment") / "venv"
    processes.run(*UV, "venv", "--python", sys.executable, str(folder))
    locked = ("--constraints", str(ROOT / "requirements.txt"))
    install = ("pip", "install", "--python", str(folder / "bin" / "python"), *locked, str(wheel))
    processes.run(*UV, *install, within_s=INSTALLED_WITHIN_S)
    return Environment(folder)


def test_cachectl_prints_its_version_and_help(environment: Environment) -> None:
    assert environment.run("cachectl", "--version") == f"cachectl {VERSION}\n"
    assert "Work with the registry caches of a stack" in environment.run("cachectl", "--help")


def test_a_shell_completes_the_commands_of_cachectl(environment: Environment) -> None:
    asking = ("COMP_WORDS=cachectl ver", "COMP_CWORD=1", "_CACHECTL_COMPLETE=complete_bash")

    assert processes.run("env", *asking, environment.folder / "bin" / "cachectl") == "verify\n"


def test_cachectl_looks_for_a_stack_on_the_engine(environment: Environment) -> None:
    with pytest.raises(CommandFailedError, match="stack nowhere"):
        environment.run("cachectl", "status", "--stack", "nowhere")


def test_cachectl_writes_the_monitoring_files(environment: Environment) -> None:
    environment.run("cachectl", "metrics", "--output", "monitoring")

    files = {file.name: file.read_text() for file in (ROOT / "monitoring").iterdir()}
    written = (environment.folder / "monitoring").iterdir()
    assert {file.name: file.read_text() for file in written} == files


def test_the_components_are_part_of_the_package(environment: Environment) -> None:
    code = (
        "from talos_registry_cache.components.registry_cache import RegistryCache\n"
        "print(RegistryCache.__module__)\n"
    )

    assert environment.run("python", "-c", code) == (
        "talos_registry_cache.components.registry_cache\n"
    )
    # A top-level package would shadow the components of other programs.
    with pytest.raises(CommandFailedError, match="No module named 'components'"):
        environment.run("python", "-c", "import components")


def test_the_package_has_types_and_a_licence_but_no_tests_or_tools(
    environment: Environment,
) -> None:
    code = (
        "from importlib import metadata\n"
        "for file in metadata.files('talos-registry-cache'): print(file)\n"
        "print(metadata.metadata('talos-registry-cache')['License-Expression'])\n"
    )
    listed = environment.run("python", "-c", code).splitlines()

    assert "talos_registry_cache/py.typed" in listed
    assert "talos_registry_cache/components/py.typed" in listed
    assert any(line.endswith("licenses/LICENSE") for line in listed)
    assert listed[-1] == "Apache-2.0"
    assert not [line for line in listed if line.startswith(("tests/", "toolchain/", "components/"))]


def test_uvx_runs_cachectl_from_the_checkout(tmp_path: Path) -> None:
    line = (*UV, "tool", "run", "--from", str(ROOT), "cachectl", "--version")
    env = {**os.environ, "UV_TOOL_DIR": str(tmp_path)}

    said = processes.run(*line, within_s=INSTALLED_WITHIN_S, env=env)

    assert said == f"cachectl {VERSION}\n"
