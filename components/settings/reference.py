"""The reference of all settings, made from their models: a page to read, a schema for editors.

Run by `make docs`.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from . import StackFile, secrets
from .mistakes import in_yaml

PROJECT = "talos-registry-cache"
DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = DOCS / "settings.md"
SCHEMA = DOCS / "stack-file.schema.json"

# What may be left empty in YAML, since all of it has a default or is known.
NULLABLE = ("Upstream", "Cluster")

Schema = Mapping[str, Any]

HEAD = f"""\
# Settings

All keys of a stack file, made from the models in `components/settings` by `make docs`. They stand
below `config:`, with or without the project's name before them, such as `{PROJECT}:caches`. A
mistake is reported before anything is touched, with its place, what was found and what is allowed.
Programs of your own use the same settings: see [components.md](components.md).

Editors check and complete a stack file by its first line:

```yaml
# yaml-language-server: $schema=docs/stack-file.schema.json
```
"""

SECRETS_HEAD = """\
## Secrets

These keys are encrypted in the stack file, and set by a command that asks for the value:

<!-- run by: README.md: pulumi config set -s dev --secret --path 'passwords["docker.io"]' -->

```sh
python3 -m toolchain run -- pulumi config set -s dev --secret --path 'passwords["docker.io"]'
```

| secret | meaning | command |
| - | - | - |
"""

SECRETS: Mapping[tuple[str, ...], str] = {
    ("passwords", "<upstream>"): "The password of an upstream that has a `username`",
    ("passwords", secrets.VIA): "The password of `caches.via.username`",
    ("readers", "<user>"): "The password of one who may read the caches; without any, everyone may",
    ("s3Keys", "accessKey"): "The access key of the object store, for `caches.storage`",
    ("s3Keys", "secretKey"): "Its secret key",
    ("tlsKey",): "The key of `caches.tls.certificate`, in PEM",
}

# How Pulumi writes what it has encrypted.
ENCRYPTED = {
    "description": "What `pulumi config set --secret` has encrypted",
    "type": "object",
    "properties": {"secure": {"type": "string"}},
    "required": ["secure"],
    "additionalProperties": False,
}


def schema() -> dict[str, Any]:
    """The JSON schema of a stack file, as people write it."""
    settings = _settings()
    definitions = settings["$defs"]
    for name in NULLABLE:
        definitions[name] = {"anyOf": [definitions[name], {"type": "null"}]}
    definitions["Encrypted"] = ENCRYPTED
    properties = {**settings["properties"], **_secrets()}
    # Pulumi puts the project's name before keys that have none, and writes it when it sets one.
    keys = properties | {f"{PROJECT}:{key}": value for key, value in properties.items()}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"Stack file of {PROJECT}",
        "type": "object",
        "properties": {"config": {"type": "object", "properties": _closed(keys)}},
        "$defs": _closed(definitions),
    }


def page() -> str:
    """The page of all settings, in Markdown."""
    settings = _settings()
    sections = [HEAD]
    for key, value in settings["properties"].items():
        sections.append(f"## {key}\n\n{value['description']}.\n")
        sections.extend(_tables(key, value, settings["$defs"]))
    sections.append(SECRETS_HEAD + "".join(map(_row_of_secret, SECRETS)))
    return "\n".join(sections)


def write() -> None:
    """Write the page and the schema into docs/."""
    PAGE.write_text(page(), encoding="utf-8")
    SCHEMA.write_text(f"{json.dumps(schema(), indent=2)}\n", encoding="utf-8")


def _settings() -> dict[str, Any]:
    settings = StackFile.model_json_schema(by_alias=True)
    # What an upstream leaves out, the catalogue may know.
    del settings["$defs"]["Upstream"]["required"]
    return settings


def _closed(value: Any) -> Any:
    """A schema in which maps have no keys but those of the right form, and no titles."""
    if isinstance(value, list):
        return [_closed(item) for item in value]
    if not isinstance(value, dict):
        return value
    is_map = "patternProperties" in value
    closed = {
        key: _closed(item)
        for key, item in value.items()
        if not (key == "title" and isinstance(item, str))
    }
    return closed | ({"additionalProperties": False} if is_map else {})


def _secrets() -> dict[str, Schema]:
    """The schema of each key that is encrypted: each value of a mapping, or all of it."""
    encrypted = {"$ref": "#/$defs/Encrypted"}
    by_name = {"type": "object", "additionalProperties": encrypted}
    s3_keys = {
        "type": "object",
        "properties": dict.fromkeys(secrets.S3_KEYS, encrypted),
        "additionalProperties": False,
    }
    return {
        "passwords": {"anyOf": [encrypted, by_name]},
        "readers": {"anyOf": [encrypted, by_name]},
        "s3Keys": {"anyOf": [encrypted, s3_keys]},
        "tlsKey": encrypted,
    }


def _row_of_secret(path: tuple[str, ...]) -> str:
    return f"| `{in_yaml(path)}` | {SECRETS[path]} | `{secrets.command(path)}` |\n"


def _tables(path: str, value: Schema, definitions: Mapping[str, Schema]) -> Iterator[str]:
    """The tables of the models at a path, each with those of the models within after it."""
    models = list(_models(value, definitions))
    for name, model in models:
        at = f"{path}.{name}" if name else path
        kind = f" with `kind: {_kind(model)}`" if len(models) > 1 else ""
        rows = [
            f"### `{at}`{kind}\n\n{model['description']}\n",
            "| key | default | meaning |",
            "| - | - | - |",
        ]
        for key, field in model["properties"].items():
            rows.append(f"| `{key}` | {_default(key, field, model)} | {field['description']} |")
        yield "\n".join(rows) + "\n"
        for key, field in model["properties"].items():
            yield from _tables(f"{at}.{key}", field, definitions)


def _models(value: Schema, definitions: Mapping[str, Schema]) -> Iterator[tuple[str, Schema]]:
    """The models that a value may be, or has at each key, with the name that such keys have."""
    if "$ref" in value:
        yield "", definitions[_referred(value)]
    for inner in value.get("patternProperties", {}).values():
        if "$ref" in inner:
            name = _referred(inner)
            yield f"<{name.lower()}>", definitions[name]
    for one in (*value.get("anyOf", ()), *value.get("oneOf", ())):
        yield from _models(one, definitions)


def _referred(value: Schema) -> str:
    return str(value["$ref"]).rpartition("/")[2]


def _kind(model: Schema) -> str:
    return str(model["properties"]["kind"]["const"])


def _default(key: str, field: Schema, model: Schema) -> str:
    if key in model.get("required", ()):
        return "required"
    if "$ref" in field or field.get("default") in (None, [], {}):
        return ""
    if "oneOf" in field:
        return f"`kind: {field['default']['kind']}`"
    return f"`{json.dumps(field['default'])}`".replace('"', "")


if __name__ == "__main__":
    write()
