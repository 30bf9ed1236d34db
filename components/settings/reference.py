"""Generates the reference of all settings from their models: a page and a JSON schema.

Run by `make docs`.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from . import StackSettings, secrets
from .mistakes import in_yaml

PROJECT = "talos-registry-cache"
DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = DOCS / "settings.md"
SCHEMA = DOCS / "stack-file.schema.json"

# Models whose key may have no value in YAML, since everything has a default.
NULLABLE = ("Upstream", "Cluster")

Schema = Mapping[str, Any]

HEAD = f"""\
# Settings

The keys of a stack file, `Pulumi.<stack>.yaml`. They are set below `config:`, with or without the
name of the project before them, such as `{PROJECT}:caches`. Paths of files are relative to the
stack file. Mistakes are reported all at once and before anything is changed, each with its path,
what was found and what is allowed. [Programs of your own](components.md) use the same settings.

Editors with a YAML language server check and complete a stack file that starts with this line:

```yaml
# yaml-language-server: $schema=docs/stack-file.schema.json
```
"""

SECRETS_HEAD = """\
## Secrets

These keys are encrypted in the stack file. The command to set a secret asks for its value:

<!-- run by: README.md: pulumi config set -s dev --secret --path 'passwords["docker.io"]' -->

```sh
python3 -m toolchain run -- pulumi config set -s dev --secret --path 'passwords["docker.io"]'
```

| secret | meaning | command |
| - | - | - |
"""

SECRETS: Mapping[tuple[str, ...], str] = {
    ("passwords", "<upstream>"): "Password of an upstream that has a `username`",
    ("passwords", secrets.VIA): "Password of `caches.via.username`",
    (
        "readers",
        "<user>",
    ): "Password of a user who may read the caches; without any, everyone may",
    ("s3Keys", "accessKey"): "Access key of the object store in `caches.storage`",
    ("s3Keys", "secretKey"): "Secret key of the object store in `caches.storage`",
    ("tlsKey",): "Private key of `caches.tls.certificate`, in PEM",
}

# An encrypted value, as Pulumi writes it.
ENCRYPTED = {
    "description": "What `pulumi config set --secret` has encrypted",
    "type": "object",
    "properties": {"secure": {"type": "string"}},
    "required": ["secure"],
    "additionalProperties": False,
}


def schema() -> dict[str, Any]:
    """The JSON schema of a stack file."""
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
    """The JSON schema of the keys that are not encrypted."""
    settings = StackSettings.model_json_schema()
    for key in secrets.KEYS:
        del settings["properties"][key]
    del settings["$defs"]["S3Keys"]
    # The catalogue has defaults for these.
    del settings["$defs"]["Upstream"]["required"]
    return settings


def _closed(value: Any) -> Any:
    """A schema without titles, whose maps allow only keys of the right form."""
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
    """The schemas of the encrypted keys: of each value in a mapping, or of the whole."""
    encrypted = {"$ref": "#/$defs/Encrypted"}
    by_name = {"type": "object", "additionalProperties": encrypted}
    s3_keys = {
        "type": "object",
        "properties": {
            str(field.alias): encrypted for field in secrets.S3Keys.model_fields.values()
        },
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
    """The tables of the models at a path, each followed by the tables of its nested models."""
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
    """The models of a value or of its entries, with the placeholder for an entry's key."""
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
