"""Each stack file of the repository can be previewed."""

import os
import secrets
from pathlib import Path

import pytest
import yaml
from docker import DockerClient

from tests.integration.support.stack import ROOT, CacheStack

FILES = sorted(file for file in ROOT.glob("Pulumi.*.yaml") if "\n  caches:" in file.read_text())

# Secrets that users add to a stack file.
NOT_IN_THE_FILE = {"Pulumi.team.yaml": ("s3Keys.accessKey", "s3Keys.secretKey")}


def _planned(file: Path, folder: Path, engine: DockerClient) -> dict[str, set[int]]:
    """The ports of the caches that the first `up` would create, by container name."""
    # Under a new name, because the stack of this file may be up on this machine.
    stack = CacheStack(f"it-{secrets.token_hex(4)}", folder, engine, os.environ["DOCKER_HOST"])
    stack.use(file)
    for path in NOT_IN_THE_FILE.get(file.name, ()):
        stack.set_secret(path, "secret")
    steps = stack.plan()
    assert {step["op"] for step in steps} == {"create"}
    made = [(step["newState"]["type"], step["newState"].get("inputs", {})) for step in steps]
    containers = {
        inputs["name"]: {int(port["external"]) for port in inputs["ports"]}
        for kind, inputs in made
        if kind == "docker:index/container:Container" and "ports" in inputs
    }
    services = {
        inputs["name"]: {int(port["publishedPort"]) for port in inputs["endpointSpec"]["ports"]}
        for kind, inputs in made
        if kind == "docker:index/service:Service" and "ports" in inputs["endpointSpec"]
    }
    return containers | services


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_stack_file_previews_a_cache_for_each_upstream(
    file: Path, tmp_path: Path, engine: DockerClient
) -> None:
    settings = yaml.safe_load(file.read_text())["config"]["caches"]
    ports = set().union(*_planned(file, tmp_path, engine).values())
    assert ports == {upstream["port"] for upstream in settings["upstreams"].values()}


def test_the_guides_caches_have_the_ports_of_the_talos_guide(
    tmp_path: Path, engine: DockerClient
) -> None:
    planned = _planned(ROOT / "Pulumi.guide.yaml", tmp_path, engine)
    assert planned == {
        "registry-docker.io": {5000},
        "registry-k8s.gcr.io": {5001},
        "registry-quay.io": {5002},
    }
