"""The base of all settings models, which finds every mistake in one pass.

Pydantic checks no rule across fields while one of the fields is wrong. Here a wrong field is noted
and left out, so that the rules see whatever is right, and the outermost model refuses all at once.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    ModelWrapValidatorHandler,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    field_validator,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic.fields import FieldInfo

from .mistakes import Mistake, from_pydantic, refuse_within, unknown_key

_MISSING = object()
# Has no attributes, so that a rule that needs one gives up.
_WRONG = object()
_noted: ContextVar[list[Mistake] | None] = ContextVar("noted", default=None)


@dataclass(frozen=True, slots=True)
class Context:
    """What the rules need to know beside the settings.

    Attributes:
        stack: the stack's name.
        plain: the keys of the stack file that are not encrypted.
    """

    stack: str = ""
    plain: frozenset[str] = frozenset()


Rules = Iterable[Iterator[Mistake]]


class Needed(str):
    """What is allowed for a required field that is missing; the default is its description."""

    __slots__ = ()


class Model(BaseModel):
    """Frozen settings: camelCase keys in YAML, field names in Python, and no other keys."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        validate_by_name=True,
        hide_input_in_errors=True,
    )

    def rules(self, context: Context) -> Rules:  # noqa: ARG002 - for those that need it
        """The rules across fields, each a generator of mistakes that has not begun.

        A wrong field is left out: a rule that reads it ends with an AttributeError.
        """
        return ()

    @model_validator(mode="wrap")
    @classmethod
    def _refuse_all_at_once(
        cls, value: Any, handler: ModelWrapValidatorHandler[Any], info: ValidationInfo
    ) -> Any:
        if not isinstance(value, dict | cls):
            return handler(value)  # Refuses it.
        with _below() as found:
            made = cls._completed(value, handler, found)
            for rule in made.rules(info.context or Context()):
                with suppress(AttributeError):
                    found.extend(rule)
        return made

    @field_validator("*", mode="wrap")
    @classmethod
    def _note_what_is_wrong(
        cls, value: Any, handler: ValidatorFunctionWrapHandler, info: ValidationInfo
    ) -> Any:
        field = cls.model_fields[str(info.field_name)]
        with _below(str(field.alias), wanted=needed(field)) as found:
            if value is not _MISSING:
                return handler(value)
            found.append(Mistake((), f"found none; allowed: {needed(field)}"))
        return _WRONG

    @classmethod
    def _completed(
        cls, value: Any, handler: ModelWrapValidatorHandler[Any], found: list[Mistake]
    ) -> Any:
        """The model without its wrong fields, which are added to what is found."""
        try:
            made = handler(value)
        except ValidationError as error:
            # Fields note their own mistakes: keys are left, missing and unknown ones.
            lines = error.errors(include_url=False, include_context=False, include_input=False)
            missing = {line["loc"][0]: _MISSING for line in lines if line["type"] == "missing"}
            unknown = {line["loc"][0] for line in lines} - missing.keys()
            known = {key: one for key, one in value.items() if key not in unknown}
            found.clear()
            made = handler(known | missing)
            keys = [str(field.alias) for field in cls.model_fields.values()]
            found += [Mistake((key,), unknown_key(str(key), keys)) for key in unknown]
        for name in [name for name, one in vars(made).items() if one is _WRONG]:
            del vars(made)[name]
        return made


def _each_entry(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
    if not isinstance(value, dict) or not value:
        return handler(value)
    made: dict[Any, Any] = {}
    for key, one in value.items():
        with _below(key, depth=1):
            try:
                made |= handler({key: one})
            except ValidationError as error:
                if not any(line["loc"][-1] == "[key]" for line in error.errors()):
                    made[key] = _WRONG
                raise
    return made


EACH = WrapValidator(_each_entry)
"""Validates the entries of a mapping one by one: a wrong one leaves the others to the rules."""


def right(entries: Mapping[str, Model], field: str) -> dict[str, Any]:
    """The values that a field has in models, by their keys, wherever it is right."""
    return {
        key: vars(one)[field]
        for key, one in entries.items()
        if isinstance(one, Model) and field in vars(one)
    }


def by_kind(default: str) -> Discriminator:
    """Tells settings of several kinds apart by their key `kind`.

    Args:
        default: the kind of settings without this key.
    """

    def kind(value: Any) -> Any:
        if not isinstance(value, Mapping):
            return getattr(value, "kind", None)
        kind = value.get("kind", default)
        # It is shown where it is wrong, and may be anything.
        return "no text" if isinstance(kind, Mapping | list) else str(kind)

    return Discriminator(kind)


@contextmanager
def _below(*key: str, wanted: str = "", depth: int = 0) -> Iterator[list[Mistake]]:
    """Collect the mistakes that are found within, and put a key before their paths.

    Args:
        key: the key, if any.
        wanted: what is allowed where nothing is found.
        depth: the number of keys by which the paths of raised errors begin with `key`.

    Raises:
        ValidationError: there are mistakes, and nothing outside collects them.
    """
    outer, found = _noted.get(), list[Mistake]()
    token = _noted.set(found)
    try:
        yield found
    except ValidationError as error:
        for line in error.errors(include_url=False):
            found.append(from_pydantic(line, line["loc"][depth:], key, wanted))
    finally:
        _noted.reset(token)
    below = [Mistake((*key, *mistake.path), mistake.text) for mistake in found]
    if outer is None:
        refuse_within(below)
    else:
        outer += below


def needed(field: FieldInfo) -> str:
    """What is allowed for a field that is missing."""
    own = next((one for one in field.metadata if isinstance(one, Needed)), None)
    text = str(field.description)
    return own or (text if text[1].isupper() else f"{text[0].lower()}{text[1:]}")
