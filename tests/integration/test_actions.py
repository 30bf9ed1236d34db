"""The steps of the GitHub Actions in actions/, one run after another."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.support import checkouts, private_engine
from tests.integration.support.checkouts import Machine
from tests.integration.support.stack import ROOT

ACTIONS = sorted((ROOT / "actions").glob("*/action.yml"))
STACK, REGISTRY = "mine", "docker.io"
IMAGE = f"{REGISTRY}/team/tool:1"

pytestmark = pytest.mark.skipif(
    bool(private_engine.why_impossible()), reason=private_engine.why_impossible() or "possible"
)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with checkouts.machine(tmp_path_factory.mktemp("machine")) as made:
        yield made


class Job:
    """A job on a new runner, which gets the archive that earlier jobs have saved."""

    def __init__(self, machine: Machine, checkout: Path, temporary: Path) -> None:
        self._machine, self._checkout = machine, checkout
        self._output = checkout.parent / "output"
        self._env = {
            "STACK": STACK,
            "STACK_FILE": "stack.yaml",
            "RUNNER_TEMP": str(temporary),
            "GITHUB_WORKSPACE": str(checkout.parent),
            "GITHUB_OUTPUT": str(self._output),
        }

    def run(self, action: str) -> str:
        """Run the steps of an action that are scripts; returns what they print."""
        folder = Path("actions", action)
        env = {**self._env, "GITHUB_ACTION_PATH": str(self._checkout / folder)}
        printed = ""
        for step in _steps(ROOT / folder / "action.yml"):
            if "run" in step:
                code, said = self._machine.run(step["run"], self._checkout, env)
                assert code == 0, said
                printed += said
        return printed

    @property
    def outputs(self) -> dict[str, str]:
        """The outputs of the steps."""
        return dict(line.split("=", 1) for line in self._output.read_text().splitlines())


def _steps(action: Path) -> list[dict[str, Any]]:
    steps: list[dict[str, Any]] = yaml.safe_load(action.read_text())["runs"]["steps"]
    return steps


@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: action.parent.name)
def test_no_expression_becomes_part_of_a_script_and_other_actions_are_pinned(action: Path) -> None:
    assert not [step for step in _steps(action) if "${{" in step.get("run", "")]
    for used in re.findall(r"uses: (.+)", action.read_text()):
        assert re.fullmatch(r"[\w/-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", used), used


def test_a_job_begins_with_the_images_that_an_earlier_one_has_saved(
    machine: Machine, tmp_path: Path
) -> None:
    settings = {
        "caches": {
            "storage": {"onDestroy": "delete"},
            "upstreams": {REGISTRY: {"port": 5000, "remoteUrl": machine.upstream_url}},
        },
        "images": {"references": [IMAGE]},
    }
    for name in ("first", "second"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "stack.yaml").write_text(yaml.safe_dump({"config": settings}))
        with checkouts.checkout(machine, folder) as checkout:
            job = Job(machine, checkout, tmp_path)
            if name == "second":
                machine.stop_upstream()
            job.run("up")
            assert json.loads(job.outputs["mirrors"]).keys() == {REGISTRY}
            patch = Path(job.outputs["talos-patch"]).read_text()
            assert json.loads(job.outputs["mirrors"])[REGISTRY] in patch
            code, said = machine.run("docker pull 127.0.0.1:5000/team/tool:1", checkout)
            assert code == 0, said
            job.run("save")
