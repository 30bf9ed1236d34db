import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from components.settings import reference, secrets

ROOT = Path(__file__).resolve().parents[3]
STACK_FILES = sorted(ROOT.glob("Pulumi.*.yaml"))

UPSTREAMS = {"upstreams": {"docker.io": {"port": 5000, "image": "registry:3.1.2"}}}
S3 = {"kind": "s3", "bucket": "caches"}
SWARM = {"kind": "swarm", "nodeLabels": {"cache": "true"}, "replicas": 3, "publish": "mesh"}
VIA = {"mirrors": {"docker.io": "https://team.test:5000"}}
PEM = "-----BEGIN CERTIFICATE-----\n…"
ENCRYPTED = {"secure": "v1:…"}


def accepts(**keys: Any) -> bool:
    config = {f"{reference.PROJECT}:{key}": value for key, value in keys.items()}
    validator = jsonschema.Draft202012Validator(reference.schema())
    return validator.is_valid({"config": config})


def test_page_and_schema_are_up_to_date() -> None:
    assert reference.PAGE.read_text() == reference.page(), "run `make docs`"
    assert json.loads(reference.SCHEMA.read_text()) == reference.schema(), "run `make docs`"


@pytest.mark.parametrize("path", STACK_FILES, ids=lambda path: path.stem)
def test_every_stack_file_names_the_schema_and_is_valid(path: Path) -> None:
    text = path.read_text()
    schema = reference.SCHEMA.relative_to(ROOT)

    assert text.splitlines()[0] == f"# yaml-language-server: $schema={schema}"
    jsonschema.validate(yaml.safe_load(text), reference.schema())


@pytest.mark.parametrize(
    "written",
    [
        {"caches": {**UPSTREAMS, "storage": S3, "placement": SWARM, "tls": {}, "via": VIA}},
        {"caches": {**UPSTREAMS, "retention": {"unusedFor": "720h", "maxSize": "20g"}}},
        {"caches": {**UPSTREAMS, "storage": {"onDestroy": "delete"}}},
        {"caches": {**UPSTREAMS, "tls": {"kind": "given", "certificate": PEM, "ca": PEM}}},
        {"caches": {"upstreams": {"docker.io": None}}, "clusters": {"demo": None}},
        {"images": {"references": ["docker.io/library/alpine:3"]}},
        {"passwords": {"docker.io": ENCRYPTED, "via": ENCRYPTED}, "readers": {"adam": ENCRYPTED}},
        {"s3Keys": {"accessKey": ENCRYPTED, "secretKey": ENCRYPTED}, "tlsKey": ENCRYPTED},
        {"s3Keys": ENCRYPTED},
    ],
)
def test_editors_accept_valid_settings(written: dict[str, Any]) -> None:
    assert accepts(**written)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("caches", {}),
        ("caches", {"upstreams": {}}),
        ("caches", {"upstreams": {"no host": {"port": 5000}}}),
        ("caches", {"upstreams": {"docker.io": {"port": "5000"}}}),
        ("caches", {"upstreams": {"docker.io": {"port": 70000}}}),
        ("caches", {"upstreams": {"docker.io": {"prot": 5000}}}),
        ("caches", {**UPSTREAMS, "retention": {"unusedFor": "30d"}}),
        ("caches", {**UPSTREAMS, "storage": {"kind": "nfs"}}),
        ("caches", {**UPSTREAMS, "storage": {"kind": "s3"}}),
        ("caches", {**UPSTREAMS, "storage": {**S3, "onDestroy": "delete"}}),
        ("caches", {**UPSTREAMS, "storage": {"bucket": "caches"}}),
        ("caches", {**UPSTREAMS, "storage": {**S3, "bucket": "Caches"}}),
        ("caches", {**UPSTREAMS, "placement": {"replicas": 2}}),
        ("caches", {**UPSTREAMS, "placement": {**SWARM, "replicas": 0}}),
        ("caches", {**UPSTREAMS, "placement": {**SWARM, "nodeLabels": {"cache": True}}}),
        ("caches", {**UPSTREAMS, "tls": {"kind": "given"}}),
        ("caches", {**UPSTREAMS, "tls": {"names": ["a b"]}}),
        ("caches", {**UPSTREAMS, "tls": {"certificate": PEM}}),
        ("caches", {**UPSTREAMS, "via": {}}),
        ("caches", {**UPSTREAMS, "via": {"mirrors": {}}}),
        ("caches", {**UPSTREAMS, "via": {**VIA, "password": "hunter2"}}),
        ("clusters", {"Demo": {}}),
        ("clusters", {"demo": {"provisioner": "podman"}}),
        ("images", {"reference": []}),
        ("passwords", {"docker.io": "hunter2"}),
        ("passwords", "hunter2"),
        ("readers", ["adam"]),
        ("s3Keys", {"accesKey": ENCRYPTED}),
        ("s3Keys", {"accessKey": ENCRYPTED, "secretKey": "hunter2"}),
        ("tlsKey", "-----BEGIN PRIVATE KEY-----"),
        ("tlsKey", {"secure": 5}),
    ],
)
def test_editors_refuse_invalid_settings_and_secrets_in_plain_text(key: str, value: Any) -> None:
    assert not accepts(**{key: value})


def test_page_and_schema_list_every_secret_with_its_command() -> None:
    page, keys = reference.page(), reference.schema()["properties"]["config"]["properties"]

    for key in secrets.KEYS:
        assert f"{reference.PROJECT}:{key}" in keys
        assert key in {path[0] for path in reference.SECRETS}
    for path in reference.SECRETS:
        assert f"`{secrets.command(path)}` |" in page


def test_every_kind_has_a_table_of_its_own() -> None:
    page = reference.page()
    lines = page.splitlines()

    kinds = "storage volume, storage s3, placement engine, placement swarm, tls own, tls given"
    for path, kind in (one.split() for one in kinds.split(", ")):
        _, found, section = page.partition(f"### `caches.{path}` with `kind: {kind}`\n\n")
        assert found
        assert "| `kind` | " in section.partition("###")[0]
    heads = [number for number, line in enumerate(lines) if line.startswith("| - |")]
    assert all(lines[number - 2] == "" for number in heads)
    cells = {line.replace("`|`", "").count(" |") for line in lines if line.startswith("| ")}
    assert cells == {3}
