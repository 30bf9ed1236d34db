"""The reference of all settings, made from their models: a page to read, a schema for editors.

Run by `make docs`.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from components.settings import StackFile

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
below `config:`, each with the project's name before it, such as `{PROJECT}:caches`. A mistake is
reported before anything is touched, with its place, what was found and what is allowed.

Editors check and complete a stack file by its first line:

```yaml
# yaml-language-server: $schema=docs/stack-file.schema.json
```

Passwords of upstreams are encrypted, and set by a command:

<!-- run by: README.md: pulumi config set -s dev --secret --path 'passwords["docker.io"]' -->

```sh
python3 -m toolchain run -- pulumi config set -s dev --secret --path 'passwords["docker.io"]'
```
"""


def schema() -> dict[str, Any]:
    """The JSON schema of a stack file, as people write it."""
    settings = _settings()
    definitions = settings["$defs"]
    for name in NULLABLE:
        definitions[name] = {"anyOf": [definitions[name], {"type": "null"}]}
    keys = {f"{PROJECT}:{key}": value for key, value in settings["properties"].items()}
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


def _tables(path: str, value: Schema, definitions: Mapping[str, Schema]) -> Iterator[str]:
    """The table of the model at a path, and after it those of the models within."""
    found = _model(value, definitions)
    if found is None:
        return
    name, model = found
    path = f"{path}.{name}" if name else path
    rows = [
        f"### `{path}`\n\n{model['description']}\n",
        "| key | default | meaning |",
        "| - | - | - |",
    ]
    for key, field in model["properties"].items():
        rows.append(f"| `{key}` | {_default(key, field, model)} | {field['description']} |")
    yield "\n".join(rows) + "\n"
    for key, field in model["properties"].items():
        yield from _tables(f"{path}.{key}", field, definitions)


def _model(value: Schema, definitions: Mapping[str, Schema]) -> tuple[str, Schema] | None:
    """The model that a value is, or has at each key, with the name that such keys have."""
    for one in (value, *value.get("anyOf", ())):
        if "$ref" in one:
            return "", definitions[one["$ref"].rpartition("/")[2]]
        for inner in one.get("patternProperties", {}).values():
            if "$ref" in inner:
                name = inner["$ref"].rpartition("/")[2]
                return f"<{name.lower()}>", definitions[name]
    return None


def _default(key: str, field: Schema, model: Schema) -> str:
    if key in model.get("required", ()):
        return "required"
    if "$ref" in field or field.get("default") in (None, [], {}):
        return ""
    return f"`{json.dumps(field['default'])}`".replace('"', "")


if __name__ == "__main__":
    write()
