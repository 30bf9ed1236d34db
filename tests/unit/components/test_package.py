import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pulumi
import pytest
import yaml

import components
from components import package
from components.engine import EngineFacts
from components.package import COMPONENT
from tests.unit.components import stack_graph
from tests.unit.components.declared_caches import GATEWAY, engine_with
from tests.unit.components.stack_graph import CONTAINER, Graph

FOLDER = Path(components.__file__).parent
SCHEMA = package.schema("0.1.0")
INPUTS = SCHEMA["resources"][COMPONENT]["inputProperties"]


def construct(**inputs: Any) -> Graph:
    """Declare caches as a program in another language does."""

    def program() -> None:
        made = package._Package("0.1.0", "{}").construct("caches", COMPONENT, inputs)
        for name, value in made.state.items():
            pulumi.export(name, value)

    with engine_with(EngineFacts(GATEWAY, {})):
        return stack_graph.run(program)


def test_secrets_are_secret_inputs_and_settings_are_plain() -> None:
    for name, found in INPUTS.items():
        assert bool(found.get("plain")) is not bool(found.get("secret")), name
        assert found["description"], name
    assert {name for name in INPUTS if INPUTS[name].get("secret")} == (
        {"passwords", "readers", "tlsKey"}
    )


def test_the_schema_defines_every_type_it_refers_to() -> None:
    referred = set(re.findall(r'"#/types/([^"]+)"', json.dumps(SCHEMA)))

    assert referred == SCHEMA["types"].keys()
    assert "remoteUrl" in SCHEMA["types"][f"{package.NAME}:caches:Upstream"]["properties"]
    kinds = [one["$ref"].rpartition(":")[2] for one in INPUTS["storage"]["oneOf"]]
    assert kinds == ["VolumeStorage", "S3Storage"]


def test_float_inputs_from_other_languages_are_accepted() -> None:
    graph = construct(upstreams={"quay.io": {"port": 5002.0}}, logs={"maxFiles": 2.0})

    (port, _) = graph.one(CONTAINER, "quay.io-container").inputs["ports"]
    assert port["external"] == 5002
    assert graph.outputs["talosctlFlags"] == (f"--registry-mirror quay.io=http://{GATEWAY}:5002")
    assert graph.outputs.keys() <= SCHEMA["resources"][COMPONENT]["properties"].keys()


def test_invalid_arguments_are_reported_with_their_paths() -> None:
    with pytest.raises(pulumi.InputPropertiesError) as refused:
        construct(upstreams={"quay.io": {"port": 99999.0}})

    assert refused.value.errors is not None
    (error,) = refused.value.errors
    assert error["property_path"] == 'upstreams["quay.io"].port'
    assert error["reason"].startswith("found 99999; allowed: ")


def test_every_public_name_can_be_imported() -> None:
    for name in components.__all__:
        assert getattr(components, name).__name__ == name
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        components.Nothing  # noqa: B018


def test_pulumi_can_start_the_folder_as_a_package() -> None:
    plugin = yaml.safe_load((FOLDER / "PulumiPlugin.yaml").read_text())
    assert plugin["runtime"]["name"] == "python"

    # It fails without the address of Pulumi's engine, after all imports.
    done = subprocess.run(
        [sys.executable, str(FOLDER)], capture_output=True, text=True, check=False, timeout=120
    )

    assert "arguments are required: engine" in done.stderr
