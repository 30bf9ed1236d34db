import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from components.settings import reference

ROOT = Path(__file__).resolve().parents[3]
STACK_FILES = sorted(ROOT.glob("Pulumi.*.yaml"))


def accepts(**keys: Any) -> bool:
    config = {f"{reference.PROJECT}:{key}": value for key, value in keys.items()}
    validator = jsonschema.Draft202012Validator(reference.schema())
    return validator.is_valid({"config": config})


def upstream(**written: Any) -> dict[str, Any]:
    return {"upstreams": {"docker.io": written}}


def test_page_and_schema_are_what_make_docs_writes() -> None:
    assert reference.PAGE.read_text() == reference.page(), "run `make docs`"
    assert json.loads(reference.SCHEMA.read_text()) == reference.schema(), "run `make docs`"


def test_the_schema_is_one() -> None:
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
    ],
)
def test_what_is_right_is_right_for_editors_too(caches: dict[str, Any]) -> None:
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
    ],
)
def test_what_is_wrong_is_wrong_for_editors_too(caches: dict[str, Any]) -> None:
    assert not accepts(caches=caches)


def test_clusters_and_images_are_checked_as_well() -> None:
    assert accepts(clusters={"demo": None}, images={"references": ["docker.io/library/alpine:3"]})
    assert not accepts(clusters={"Demo": {}})
    assert not accepts(clusters={"demo": {"provisioner": "podman"}})
    assert not accepts(images={"reference": []})


def test_the_page_has_every_key_with_its_meaning() -> None:
    page = reference.page()

    for key in ("upstreams", "remoteUrl", "onDestroy", "cidr", "references", "mirrorsFrom"):
        assert key in page
    assert "### `caches.upstreams.<upstream>`" in page
    assert "### `clusters.<cluster>`" in page
