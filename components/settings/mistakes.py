"""Mistakes in settings, and their texts."""

import difflib
import re
import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from talos_registry_cache.errors import ReportedError

Path = tuple[str | int, ...]

# What is allowed, by the type of an error of pydantic.
_ALLOWED = {
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "dict_type": "a mapping",
    "int_type": "a whole number",
    "list_type": "a list",
    "model_type": "a mapping",
    "string_too_short": "non-empty text",
    "string_type": "a text",
    "string_unicode": "valid Unicode text",
    "union_tag_not_found": "a mapping",
}


class SettingsError(ReportedError):
    """The settings of a stack have mistakes; the message lists them all."""


@dataclass(frozen=True, slots=True)
class Mistake:
    """A mistake: its path in the stack file, and what was found and is allowed there."""

    path: Path
    text: str

    def __str__(self) -> str:
        """The mistake as one line."""
        return f"{in_yaml(self.path)}: {self.text}"


def refused(found: object, allowed: str, detail: object = None) -> PydanticCustomError:
    """The error for a validator to raise when a value is not allowed.

    Args:
        found: the value.
        allowed: what is allowed.
        detail: the reason; left out where the value is hidden, since it may quote that.
    """
    shown = _shown(found)
    if detail is not None and shown == repr(found):
        allowed += f" ({detail})"
    return PydanticCustomError(
        "refused", "found {found}; allowed: {allowed}", {"found": shown, "allowed": allowed}
    )


def saying(text: str) -> PydanticCustomError:
    """The error for a validator to raise with a text of its own."""
    return PydanticCustomError("refused", "{text}", {"text": text})


def refuse_within(mistakes: Iterable[Mistake]) -> None:
    """Refuse a value with several mistakes, whose paths begin at the value.

    Raises:
        ValidationError: there are mistakes.
    """
    errors = [
        InitErrorDetails(type=saying(mistake.text), loc=mistake.path, input=None)
        for mistake in mistakes
    ]
    if errors:
        raise ValidationError.from_exception_data("settings", errors)


def unknown_key(key: str, known: Iterable[str]) -> str:
    """The text for an unknown key."""
    close = difflib.get_close_matches(key, list(known), n=1)
    meant = f" (did you mean {close[0]}?)" if close else ""
    return f"found an unknown key{meant}; allowed: {', '.join(known)}"


def from_pydantic(error: ErrorDetails, loc: Path, key: Path, wanted: str) -> Mistake:
    """The mistake for an error of pydantic.

    Args:
        error: the error.
        loc: its place within a setting.
        key: the setting's key.
        wanted: what is allowed where the setting is empty.
    """
    path = loc[:-1] if loc[-1:] == ("[key]",) else loc
    is_secret = any(_SECRET.search(str(part)) for part in (*key, *path))
    match error["type"]:
        case "refused" if is_secret and "found" in error["ctx"]:
            text = f"found [hidden]; allowed: {error['ctx']['allowed']}"
        case "refused":
            text = error["msg"]
        case "union_tag_invalid":
            found, allowed = error["ctx"]["tag"], error["ctx"]["expected_tags"].replace("'", "")
            return Mistake((*path, "kind"), f"found {_shown(found)}; allowed: {allowed}")
        case "too_short" if not path:
            text = f"found none; allowed: {wanted}"
        case kind:
            rule = _ALLOWED.get(kind) or error["msg"].removeprefix("Input should be ")
            found = "[hidden]" if is_secret else _shown(error["input"])
            text = f"found {found}; allowed: {rule}"
    return Mistake(path, text)


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
    """A text with unprintable characters escaped, as in Python."""
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


class _Shown(reprlib.Repr):
    """Shows a value, shortened and without possible secrets."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = 120

    def repr_str(self, x: str, level: int) -> str:
        """A text, without the credentials of a URL in it."""
        if "PRIVATE KEY-----" in x:
            return "'[hidden]'"
        return super().repr_str(re.sub(r"(?<=://).*@", "[hidden]@", x, flags=re.DOTALL), level)

    def repr_dict(self, x: Mapping[Any, Any], level: int) -> str:
        """A mapping, without the values of keys that look secret."""
        shown = {key: "[hidden]" if _SECRET.search(str(key)) else one for key, one in x.items()}
        return super().repr_dict(shown, level)

    def repr_int(self, x: int, level: int) -> str:
        """A number, unless it has more digits than Python writes."""
        long = x.bit_length() > _LONGEST_NUMBER
        return f"a number of {x.bit_length()} bits" if long else super().repr_int(x, level)


_SECRET = re.compile(r"passw|secret|token|key|readers", re.IGNORECASE)
_LONGEST_NUMBER = 512
_shown = _Shown().repr
