"""The Pulumi package that makes `RegistryCache` available to programs in any language.

Its schema is made from the models of the settings. Settings are plain in it: programs cannot pass
outputs for them, since they decide which resources exist. Secrets are not.
"""

import json
import sys
import tomllib
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import pulumi
from pulumi.provider import ConstructResult, Provider, main

from .registry_cache import RegistryCache
from .registry_cache_args import ArgumentsError, RegistryCacheArgs

NAME = "talos-registry-cache"
COMPONENT = f"{NAME}:caches:RegistryCache"

Schema = Mapping[str, Any]

# The catalogue of registries may know what an upstream leaves out.
ALL_OPTIONAL = ("Upstream",)
STRINGS = {"type": "object", "additionalProperties": {"type": "string"}}
OUTPUTS: Schema = {
    "mirrors": {
        **STRINGS,
        "description": (
            "URL at which nodes reach the cache, by registry host; `*` is the wildcard mirror"
        ),
    },
    "caches": {
        "type": "object",
        "additionalProperties": STRINGS,
        "description": "Endpoint, name, storage and image of each cache, by registry host",
    },
    "talosctlFlags": {
        "type": "string",
        "description": "The mirrors as flags of `talosctl cluster create`",
    },
    "ca": {"type": "string", "description": "Certificate of the CA that clients need, in PEM"},
    "reader": {
        **STRINGS,
        "secret": True,
        "description": "`username` and `password` that clients need",
    },
}


def serve() -> None:
    """Serve the package until Pulumi ends it."""
    version = _version()
    main(_Package(version, json.dumps(schema(version))), sys.argv[1:])


def _version() -> str:
    try:
        return metadata.version(NAME)
    except metadata.PackageNotFoundError:
        # A checkout with its dependencies only.
        project = Path(__file__).resolve().parents[1] / "pyproject.toml"
        version: str = tomllib.loads(project.read_text())["project"]["version"]
        return version


def schema(version: str) -> dict[str, Any]:
    """The package's schema, as Pulumi's code generators read it."""
    arguments = RegistryCacheArgs.model_json_schema(by_alias=True)
    component = {
        "isComponent": True,
        "description": RegistryCache.__doc__,
        "inputProperties": _properties(arguments),
        "requiredInputs": arguments["required"],
        "properties": OUTPUTS,
        "required": ["mirrors", "caches", "talosctlFlags"],
    }
    return {
        "name": NAME,
        "version": version,
        "description": "Pull-through caches for container registries",
        "language": {"nodejs": {"respectSchemaVersion": True}},
        "resources": {COMPONENT: component},
        "types": {
            _token(name): {
                "type": "object",
                "description": model.get("description", ""),
                "properties": _properties(model),
                "required": [] if name in ALL_OPTIONAL else model.get("required", []),
            }
            for name, model in arguments["$defs"].items()
        },
    }


class _Package(Provider):
    """Declares the component when a program asks for it."""

    def construct(
        self,
        name: str,
        resource_type: str,
        inputs: pulumi.Inputs,
        options: pulumi.ResourceOptions | None = None,
    ) -> ConstructResult:
        """Declare caches.

        Raises:
            InputPropertiesError: the arguments have mistakes.
        """
        del resource_type
        try:
            cache = RegistryCache(name, RegistryCacheArgs(**_with_integers(inputs)), options)
        except ArgumentsError as error:
            raise pulumi.InputPropertiesError(
                "wrong arguments, nothing was changed",
                [
                    {"property_path": str(one).partition(": ")[0], "reason": one.text}
                    for one in error.mistakes
                ],
            ) from None
        return ConstructResult(cache.urn, cache.outputs())


def _with_integers(value: Any) -> Any:
    """Values in which whole numbers are integers: Pulumi sends all numbers as floats."""
    match value:
        case float() if value.is_integer():
            return int(value)
        case list():
            return [_with_integers(one) for one in value]
        case dict():
            return {key: _with_integers(one) for key, one in value.items()}
        case _:
            return value


def _token(model: str) -> str:
    return f"{NAME}:caches:{model}"


def _properties(model: Schema) -> dict[str, Any]:
    return {
        name: {
            **_type(found),
            **{key: found[key] for key in ("description", "const") if key in found},
        }
        for name, found in model["properties"].items()
    }


def _type(found: Schema) -> dict[str, Any]:
    """A type of a JSON schema as a type of a Pulumi schema."""
    if found.get("writeOnly"):
        return {"type": "string", "secret": True}
    if "$ref" in found:
        return {"$ref": f"#/types/{_token(found['$ref'].rpartition('/')[2])}", "plain": True}
    if kinds := [
        one for one in found.get("anyOf", found.get("oneOf", ())) if one != {"type": "null"}
    ]:
        types = [_type(one) for one in kinds]
        return types[0] if len(types) == 1 else {"oneOf": types, "plain": True}
    if found["type"] == "array":
        return {"type": "array", "items": _type(found["items"]), "plain": True}
    if found["type"] == "object":
        values = [*found.get("patternProperties", {}).values(), found.get("additionalProperties")]
        inner = _type(values[0])
        kind = {"secret": True} if inner.get("secret") else {"plain": True}
        return {"type": "object", "additionalProperties": inner, **kind}
    return {"type": found["type"], "plain": True}
