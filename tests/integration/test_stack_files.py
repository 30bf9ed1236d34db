"""The stack files of the repository are good ones: each previews from nothing."""

import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from docker import DockerClient

from tests.integration.support.stack import PROJECT, ROOT, CacheStack

FILES = sorted(
    file for file in ROOT.glob("Pulumi.*.yaml") if f"{PROJECT}:caches:" in file.read_text()
)

Inputs = dict[str, Any]


def _planned(file: Path, folder: Path, engine: DockerClient) -> dict[str, Inputs]:
    """The caches that a stack file's first `up` would make, by the names of their containers."""
    # Not by `stack`: what has the label of this stack on the engine is not the test's to remove.
    stack = CacheStack(file.name.split(".")[1], folder, engine, os.environ["DOCKER_HOST"])
    stack.use(file)
    steps = stack.plan()
    # The network is taken over if the stack is up here, from another state.
    assert {step["op"] for step in steps} <= {"create", "import"}
    containers = [
        step["newState"]["inputs"]
        for step in steps
        if step["newState"]["type"] == "docker:index/container:Container"
    ]
    return {made["name"]: made for made in containers if "ports" in made}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_stack_file_previews_a_cache_for_each_upstream(
    file: Path, tmp_path: Path, engine: DockerClient
) -> None:
    settings = yaml.safe_load(file.read_text())["config"][f"{PROJECT}:caches"]
    planned = _planned(file, tmp_path, engine)
    ports = {int(port["external"]) for made in planned.values() for port in made["ports"]}
    assert ports == {upstream["port"] for upstream in settings["upstreams"].values()}


def test_guide_is_followed_to_the_letter(tmp_path: Path, engine: DockerClient) -> None:
    planned = _planned(ROOT / "Pulumi.guide.yaml", tmp_path, engine)
    assert {name: int(made["ports"][0]["external"]) for name, made in planned.items()} == {
        "registry-docker.io": 5000,
        "registry-k8s.gcr.io": 5001,
        "registry-quay.io": 5002,
    }
    assert {made["restart"] for made in planned.values()} == {"always"}
