"""Mistakes in settings, in words for the person who wrote them."""

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel
from pydantic_core import ErrorDetails, PydanticCustomError

from components.upstreams import CATALOGUE

Path = tuple[str | int, ...]

# Settings of several kinds: pydantic puts the kind into the path.
WITH_KINDS = ("storage", "placement", "tls")

# What pydantic allows, in the words of YAML.
_ALLOWED = {
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "dict_type": "a mapping",
    "int_type": "a whole number",
    "list_type": "a list",
    "model_type": "a mapping",
    "string_too_short": "a text that is not empty",
    "string_type": "a text",
    "too_short": "one or more",
}


class SettingsError(Exception):
    """The stack's settings have mistakes; the message lists them all."""


@dataclass(frozen=True, slots=True)
class Mistake:
    """One mistake: where it is, and what was found and is allowed there."""

    path: Path
    text: str

    def __str__(self) -> str:
        """The mistake as one line."""
        return f"{in_yaml(self.path)}: {self.text}"


def refused(found: object, allowed: str) -> PydanticCustomError:
    """The error that a validator raises for a value that is not allowed."""
    return PydanticCustomError(
        "refused", "found {found}; allowed: {allowed}", {"found": _shown(found), "allowed": allowed}
    )


def from_pydantic(error: ErrorDetails, settings: type[BaseModel]) -> Mistake:
    """What pydantic found wrong with settings of a model."""
    path = _path(error["loc"])
    match error["type"]:
        case "refused":
            text = error["msg"]
        case "extra_forbidden":
            text = _unknown_key(str(path[-1]), _keys(settings, error["loc"][:-1]))
        case "union_tag_invalid":
            found, allowed = error["ctx"]["tag"], error["ctx"]["expected_tags"]
            return Mistake(
                (*path, "kind"), f"found {found!r}; allowed: {allowed.replace(chr(39), '')}"
            )
        case "missing" | "too_short" if path[-1] == "upstreams":
            text = "found none; allowed: one upstream or more, such as docker.io: {port: 5000}"
        case "missing" if path[-1] == "remoteUrl":
            text = f"missing; only the catalogue's registries have one: {', '.join(CATALOGUE)}"
        case "missing" if path[-1] != "port":
            text = "missing"
        case "missing":
            text = "missing; this registry has no customary one"
        case kind:
            rule = _ALLOWED.get(kind) or error["msg"].removeprefix("Input should be ")
            text = f"found {_shown(error['input'])}; allowed: {rule}"
    return Mistake(path, text)


def _path(loc: Path) -> Path:
    """Where a mistake is in the YAML, without what pydantic puts between for its own ends."""
    before = ("", *loc)
    return tuple(
        part
        for part, parent in zip(loc, before, strict=False)
        if part != "[key]" and parent not in WITH_KINDS
    )


def in_yaml(path: Path) -> str:
    """A path as `pulumi config set --path` takes it, below the project's name."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", part):
            text += f".{part}" if text else part
        else:
            text += '["{}"]'.format(part.replace('"', '\\"'))
    return text


def _shown(found: object) -> str:
    """What was found, without the credentials that a URL in it may have."""
    return re.sub(r"(?<=://).*@", "[hidden]@", repr(found))


def _unknown_key(key: str, known: list[str]) -> str:
    close = difflib.get_close_matches(key, known, n=1)
    meant = f" (did you mean {close[0]}?)" if close else ""
    return f"unknown key{meant}; allowed: {', '.join(known)}"


def _keys(settings: type[BaseModel], loc: Path) -> list[str]:
    """The keys that the model has which pydantic found at a place within the settings."""
    model = settings
    for part, kind in zip(loc, (*loc[1:], ""), strict=True):
        fields = {field.alias: field for field in model.model_fields.values()}
        if part in fields:
            models = list(_models_within(fields[str(part)].annotation))
            model = next((one for one in models if _kind(one) == kind), next(iter(models), model))
    return [str(field.alias) for field in model.model_fields.values()]


def _models_within(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models_within(part)


def _kind(model: type[BaseModel]) -> str | None:
    """The kind of settings that a model is of, where there are several."""
    named = model.model_fields.get("kind")
    return get_args(named.annotation)[0] if named else None
