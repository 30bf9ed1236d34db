"""Mistakes in settings, in words for the person who wrote them."""

import difflib
import re
import reprlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from talos_registry_cache.registry.catalogue import CATALOGUE

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
    "string_unicode": "a text of Unicode",
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


def refused(found: object, allowed: str, detail: object = None) -> PydanticCustomError:
    """The error that a validator raises for a value that is not allowed.

    Args:
        found: the value.
        allowed: what is allowed.
        detail: more of what is wrong; left out where the value, which it may quote, is not shown.
    """
    shown = _shown(found)
    if detail is not None and shown == repr(found):
        allowed += f" ({detail})"
    return PydanticCustomError(
        "refused", "found {found}; allowed: {allowed}", {"found": shown, "allowed": allowed}
    )


def saying(text: str) -> PydanticCustomError:
    """The error that a validator raises, in its own words: what was found and what is allowed."""
    return PydanticCustomError("refused", "{text}", {"text": text})


def refuse_within(mistakes: Iterable[Mistake]) -> None:
    """Refuse what a validator has found wrong, each at its place within what is validated.

    Raises:
        ValidationError: there are mistakes; pydantic takes them over, below the path of the value.
    """
    errors = [
        InitErrorDetails(type=saying(mistake.text), loc=mistake.path, input=None)
        for mistake in mistakes
    ]
    if errors:
        raise ValidationError.from_exception_data("settings", errors)


def unknown_key(key: str, known: Iterable[str]) -> str:
    """What is said of a key that there is not."""
    close = difflib.get_close_matches(key, list(known), n=1)
    meant = f" (did you mean {close[0]}?)" if close else ""
    return f"found an unknown key{meant}; allowed: {', '.join(known)}"


def from_pydantic(error: ErrorDetails, settings: type[BaseModel]) -> Mistake:
    """What pydantic found wrong with settings of a model."""
    path = _path(error["loc"])
    is_secret = bool(path) and bool(_SECRET.search(str(path[-1])))
    match error["type"]:
        case "refused" if is_secret and "found" in error["ctx"]:
            text = f"found [hidden]; allowed: {error['ctx']['allowed']}"
        case "refused":
            text = error["msg"]
        case "extra_forbidden":
            text = unknown_key(str(path[-1]), _keys(settings, error["loc"][:-1]))
        case "union_tag_invalid":
            found, allowed = error["ctx"]["tag"], error["ctx"]["expected_tags"].replace("'", "")
            return Mistake((*path, "kind"), f"found {_shown(found)}; allowed: {allowed}")
        case "missing" | "too_short" if path[-1] == "upstreams":
            text = "found none; allowed: one upstream or more, such as docker.io: {port: 5000}"
        case "missing" if path[-1] == "remoteUrl":
            text = f"found none; allowed: one, but for the catalogue's: {', '.join(CATALOGUE)}"
        case "missing" if path[-1] == "port":
            text = "found none; allowed: one, since this registry has no customary one"
        case "missing":
            text = f"found none; allowed: {_meaning(settings, error['loc'])}"
        case kind:
            rule = _ALLOWED.get(kind) or error["msg"].removeprefix("Input should be ")
            found = "[hidden]" if is_secret else _shown(error["input"])
            text = f"found {found}; allowed: {rule}"
    return Mistake(path, text)


def _path(loc: Path) -> Path:
    """Where a mistake is in the YAML, without what pydantic puts between for its own ends."""
    if loc[-1:] == ("[key]",):
        loc = loc[:-1]
    if len(loc) > 2 and loc[0] == "caches" and loc[1] in WITH_KINDS:  # noqa: PLR2004
        return (*loc[:2], *loc[3:])
    return loc


def in_yaml(path: Path) -> str:
    """A path as `pulumi config set --path` takes it, below the project's name."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", part):
            text += f".{part}" if text else part
        else:
            text += '["{}"]'.format(in_one_line(part.replace('"', '\\"')))
    return text


def in_one_line(text: str) -> str:
    """A text in which what cannot be printed is escaped, as in Python."""
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


class _Shown(reprlib.Repr):
    """What was found, cut short, and without what may be a secret."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = 120

    def repr_str(self, x: str, level: int) -> str:
        """A text, without the credentials that a URL in it may have."""
        if "PRIVATE KEY-----" in x:
            return "'[hidden]'"
        return super().repr_str(re.sub(r"(?<=://).*@", "[hidden]@", x, flags=re.DOTALL), level)

    def repr_dict(self, x: Mapping[Any, Any], level: int) -> str:
        """A mapping, without what stands at the keys of secrets."""
        shown = {key: "[hidden]" if _SECRET.search(str(key)) else one for key, one in x.items()}
        return super().repr_dict(shown, level)

    def repr_int(self, x: int, level: int) -> str:
        """A number, unless Python itself would refuse to write it out."""
        long = x.bit_length() > _LONGEST_NUMBER
        return f"a number of {x.bit_length()} bits" if long else super().repr_int(x, level)


_SECRET = re.compile(r"passw|secret|token|key|readers", re.IGNORECASE)
_LONGEST_NUMBER = 512
_shown = _Shown().repr


def _keys(settings: type[BaseModel], loc: Path) -> list[str]:
    """The keys that the model has which pydantic found at a place within the settings."""
    return [str(field.alias) for field in _model(settings, loc).model_fields.values()]


def _meaning(settings: type[BaseModel], loc: Path) -> str:
    """What the field is that is missing at a place within the settings."""
    fields = _model(settings, loc[:-1]).model_fields.values()
    (meaning,) = (str(field.description) for field in fields if field.alias == loc[-1])
    return meaning if meaning[1].isupper() else f"{meaning[0].lower()}{meaning[1:]}"


def _model(settings: type[BaseModel], loc: Path) -> type[BaseModel]:
    """The model that pydantic found at a place within the settings."""
    model = settings
    for part, kind in zip(loc, (*loc[1:], ""), strict=True):
        fields = {field.alias: field for field in model.model_fields.values()}
        if part in fields:
            models = list(_models_within(fields[str(part)].annotation))
            model = next((one for one in models if _kind(one) == kind), next(iter(models), model))
    return model


def _models_within(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models_within(part)


def _kind(model: type[BaseModel]) -> str | None:
    """The kind of settings that a model is of, where there are several."""
    named = model.model_fields.get("kind")
    return get_args(named.annotation)[0] if named else None
