"""The settings of a stack, as people write them in Pulumi.<stack>.yaml.

The one place that reads `pulumi.Config`. Mistakes are reported before anything is changed: all at
once, each with its path in the YAML, what was found and what is allowed.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import pulumi
from pulumi.runtime.config import CONFIG
from pydantic import ValidationError

from .caches import Caches
from .clusters import Cluster
from .mistakes import Mistake, SettingsError
from .model import Context
from .secrets import KEYS as SECRET_KEYS
from .secrets import Secrets
from .stack_file import StackSettings

__all__ = [
    "Caches",
    "Cluster",
    "Secrets",
    "SettingsError",
    "StackSettings",
    "load",
    "parse",
    "refuse",
]

TEXTS = ("mirrorsFrom", "tlsKey")
"""The keys that are no objects: a stack may be named 5."""


def load() -> StackSettings:
    """Read the settings of the stack that is running.

    Raises:
        SettingsError: they have mistakes.
    """
    config = pulumi.Config()
    own = config.full_key("")
    # Not get_secret_object: an Output cannot be checked before anything is declared.
    written = {
        key.removeprefix(own): _value(config, key.removeprefix(own))
        for key in {*CONFIG.get(), *pulumi.runtime.get_config_env()}
        if key.startswith(own)
    }
    plain = {
        key for key in SECRET_KEYS if not pulumi.runtime.is_config_secret(config.full_key(key))
    }
    return parse(pulumi.get_stack(), written, plain)


def parse(stack: str, written: Mapping[str, Any], plain: Collection[str] = ()) -> StackSettings:
    """Check the settings of a stack.

    Args:
        stack: the stack's name.
        written: the values of the stack file, by key without the project's name.
        plain: the keys that are not encrypted.

    Raises:
        SettingsError: the values have mistakes.
    """
    # Pulumi.yaml has an empty default for each key that a stack file leaves out.
    known = {field.alias for field in StackSettings.model_fields.values()}
    values = {
        key: value
        for key, value in written.items()
        if key not in known or value not in (None, {}, "")
    }
    try:
        return StackSettings.model_validate(
            values, context=Context(stack, frozenset(plain)), by_alias=True, by_name=False
        )
    except ValidationError as error:
        refuse(stack, [Mistake(line["loc"], line["msg"]) for line in error.errors()])
        raise


def refuse(stack: str, mistakes: Iterable[Mistake]) -> None:
    """Refuse the settings of a stack if they have mistakes.

    Raises:
        SettingsError: they have; the message lists them all.
    """
    lines = "".join(f"\n  {mistake}" for mistake in mistakes)
    if lines:
        raise SettingsError(f"Pulumi.{stack}.yaml has mistakes, nothing was changed:{lines}")


def _value(config: pulumi.Config, key: str) -> Any:
    """The value of a key: an object, or its text where it is none."""
    if key in TEXTS:
        return config.get(key)
    try:
        return config.get_object(key)
    except (pulumi.ConfigTypeError, RecursionError):
        return config.get(key)
