import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from components.settings import reference, secrets

ROOT = Path(__file__).resolve().parents[3]
STACK_FILES = sorted(ROOT.glob("Pulumi.*.yaml"))

S3 = {"kind": "s3", "bucket": "caches"}
SWARM = {"kind": "swarm", "nodeLabels": {"cache": "true"}, "replicas": 3, "publish": "mesh"}
VIA = {"mirrors": {"docker.io": "https://team.test:5000"}}
PEM = "-----BEGIN CERTIFICATE-----\n…"
ENCRYPTED = {"secure": "v1:…"}


def accepts(**keys: Any) -> bool:
    config = {f"{reference.PROJECT}:{key}": value for key, value in keys.items()}
    validator = jsonschema.Draft202012Validator(reference.schema())
    return validator.is_valid({"config": config})


def upstream(**written: Any) -> dict[str, Any]:
    return {"upstreams": {"docker.io": written}}


def test_page_and_schema_are_what_make_docs_writes() -> None:
    assert reference.PAGE.read_text() == reference.page(), "run `make docs`"
    assert json.loads(reference.SCHEMA.read_text()) == reference.schema(), "run `make docs`"


def test_the_schema_is_valid() -> None:
    jsonschema.Draft202012Validator.check_schema(reference.schema())


@pytest.mark.parametrize("path", STACK_FILES, ids=lambda path: path.stem)
def test_every_stack_file_names_the_schema_and_keeps_to_it(path: Path) -> None:
    text = path.read_text()
    schema = reference.SCHEMA.relative_to(ROOT)

    assert text.splitlines()[0] == f"# yaml-language-server: $schema={schema}"
    jsonschema.validate(yaml.safe_load(text), reference.schema())


@pytest.mark.parametrize(
    "caches",
    [
        {"upstreams": {"docker.io": None}},
        upstream(port=5000, image="registry:3.1.2", username="me"),
        {**upstream(), "ttl": "720h", "storage": {"onDestroy": "delete"}},
        {**upstream(), "storage": {"kind": "volume", "volumePrefix": "cached"}},
        {**upstream(), "storage": S3},
        {**upstream(), "storage": {**S3, "endpoint": "https://s3.test", "pathStyle": False}},
        {**upstream(), "placement": {"kind": "engine"}},
        {**upstream(), "placement": {"kind": "swarm"}, "publishOn": ["0.0.0.0"]},
        {**upstream(), "placement": SWARM},
        {**upstream(), "tls": {}},
        {**upstream(), "tls": {"kind": "own", "names": ["caches.test", "10.0.0.1"]}},
        {**upstream(), "tls": {"kind": "given", "certificate": PEM, "ca": PEM}},
        {**upstream(), "via": {"mirrors": {"docker.io": "https://team.test:5000"}}},
        {**upstream(), "via": {**VIA, "ca": PEM, "username": "me"}},
    ],
)
def test_editors_accept_right_caches(caches: dict[str, Any]) -> None:
    assert accepts(caches=caches)


@pytest.mark.parametrize(
    "caches",
    [
        {},
        {"upstreams": {}},
        {"upstreams": {"no host": {"port": 5000}}},
        upstream(port="5000"),
        upstream(port=70000),
        upstream(prot=5000),
        {**upstream(), "ttl": "30d"},
        {**upstream(), "storage": {"onDestroy": "forget"}},
        {**upstream(), "storage": {"kind": "nfs"}},
        {**upstream(), "storage": {"kind": "s3"}},
        {**upstream(), "storage": {**S3, "onDestroy": "delete"}},
        {**upstream(), "storage": {"bucket": "caches"}},
        {**upstream(), "storage": {**S3, "bucket": "Caches"}},
        {**upstream(), "placement": {"kind": "kubernetes"}},
        {**upstream(), "placement": {"replicas": 2}},
        {**upstream(), "placement": {**SWARM, "replicas": 0}},
        {**upstream(), "placement": {**SWARM, "publish": "everywhere"}},
        {**upstream(), "placement": {**SWARM, "nodeLabels": {"cache": True}}},
        {**upstream(), "tls": {"kind": "given"}},
        {**upstream(), "tls": {"names": "caches.test"}},
        {**upstream(), "tls": {"names": ["a b"]}},
        {**upstream(), "tls": {"certificate": PEM}},
        {**upstream(), "via": {}},
        {**upstream(), "via": {"mirrors": {}}},
        {**upstream(), "via": {**VIA, "password": "hunter2"}},
    ],
)
def test_editors_refuse_wrong_caches(caches: dict[str, Any]) -> None:
    assert not accepts(caches=caches)


def test_editors_check_clusters_and_images() -> None:
    assert accepts(clusters={"demo": None}, images={"references": ["docker.io/library/alpine:3"]})
    assert not accepts(clusters={"Demo": {}})
    assert not accepts(clusters={"demo": {"provisioner": "podman"}})
    assert not accepts(images={"reference": []})


def test_only_the_default_kind_may_be_left_out() -> None:
    kinds = {
        name: model
        for name, model in reference.schema()["$defs"].items()
        if "kind" in model.get("properties", {})
    }

    said = {name for name, model in kinds.items() if "kind" in model.get("required", ())}
    assert kinds.keys() - said == {"VolumeStorage", "EnginePlacement", "OwnTls"}
    assert said == {"S3Storage", "SwarmPlacement", "GivenTls"}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("passwords", {"docker.io": ENCRYPTED, "via": ENCRYPTED}),
        ("readers", {"adam": ENCRYPTED}),
        ("s3Keys", {"accessKey": ENCRYPTED, "secretKey": ENCRYPTED}),
        ("s3Keys", ENCRYPTED),
        ("tlsKey", ENCRYPTED),
    ],
)
def test_editors_accept_encrypted_secrets(key: str, value: Any) -> None:
    assert accepts(**{key: value})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("passwords", {"docker.io": "hunter2"}),
        ("passwords", "hunter2"),
        ("readers", ["adam"]),
        ("s3Keys", {"accesKey": ENCRYPTED}),
        ("s3Keys", {"accessKey": ENCRYPTED, "secretKey": "hunter2"}),
        ("tlsKey", "-----BEGIN PRIVATE KEY-----"),
        ("tlsKey", {"secure": 5}),
    ],
)
def test_editors_refuse_secrets_in_plain_text_and_unknown_ones(key: str, value: Any) -> None:
    assert not accepts(**{key: value})


def test_page_and_schema_have_every_secret_with_its_command() -> None:
    page, keys = reference.page(), reference.schema()["properties"]["config"]["properties"]

    for key in secrets.KEYS:
        assert f"{reference.PROJECT}:{key}" in keys
        assert key in {path[0] for path in reference.SECRETS}
    for path in reference.SECRETS:
        assert f"`{secrets.command(path)}` |" in page


def test_the_page_has_a_table_for_each_kind() -> None:
    page = reference.page()

    for path, kinds in {
        "storage": ("volume", "s3"),
        "placement": ("engine", "swarm"),
        "tls": ("own", "given"),
    }.items():
        for kind in kinds:
            _, found, section = page.partition(f"### `caches.{path}` with `kind: {kind}`\n\n")
            assert found
            assert "| `kind` | " in section.partition("###")[0]
    assert "| `storage` | `kind: volume` | " in page
    assert "### `caches.via`\n" in page


def test_every_table_of_the_page_stands_alone() -> None:
    lines = reference.page().splitlines()

    heads = [number for number, line in enumerate(lines) if line.startswith("| - |")]
    assert len(heads) > 10
    assert all(lines[number - 2] == "" for number in heads)
    cells = {line.replace("`|`", "").count(" |") for line in lines if line.startswith("| ")}
    assert cells == {3}


def test_the_page_has_every_key_with_its_meaning() -> None:
    page = reference.page()

    for key in ("upstreams", "remoteUrl", "onDestroy", "cidr", "references", "mirrorsFrom"):
        assert key in page
    assert "### `caches.upstreams.<upstream>`" in page
    assert "### `clusters.<cluster>`" in page
