"""The settings of a stack, as people write them in Pulumi.<stack>.yaml.

The one place that reads `pulumi.Config`. What is wrong is reported before anything is touched:
all mistakes at once, each with its path in the YAML, what was found and what is allowed.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pulumi
from pydantic import Field, SecretStr, ValidationError

from components.settings.caches import Caches, across_upstreams, upstreams_as_written
from components.settings.mistakes import Mistake, SettingsError, from_pydantic
from components.settings.values import Model

__all__ = ["Caches", "SettingsError", "StackSettings", "load", "parse"]


class StackFile(Model):
    """The keys of a stack file, without the project's name before them."""

    caches: Caches = Field(description="The caching proxies of the stack")


@dataclass(frozen=True, slots=True)
class StackSettings:
    """All that a stack is configured with.

    Attributes:
        stack: the stack's name.
        caches: its caching proxies.
        passwords: the password of each upstream that has a user name, by registry host.
    """

    stack: str
    caches: Caches
    passwords: Mapping[str, SecretStr]


def load() -> StackSettings:
    """Read the settings of the stack that is running.

    Raises:
        SettingsError: they have mistakes.
    """
    config = pulumi.Config()
    return parse(
        pulumi.get_stack(),
        caches=_object(config, "caches"),
        # Not get_secret_object: an Output cannot be checked before anything is declared.
        passwords=_object(config, "passwords"),
        passwords_are_secret=pulumi.runtime.is_config_secret(config.full_key("passwords")),
        is_root=os.name == "posix" and os.geteuid() == 0,
    )


def parse(
    stack: str,
    *,
    caches: Any,
    passwords: Any = None,
    passwords_are_secret: bool = True,
    is_root: bool = False,
) -> StackSettings:
    """Check the values of the configuration keys of a stack.

    Args:
        stack: the stack's name.
        caches: the value of the key `caches`.
        passwords: the value of the key `passwords`.
        passwords_are_secret: whether that value is encrypted in the stack file.
        is_root: whether ports below 1024 may be used.

    Raises:
        SettingsError: the values have mistakes.
    """
    mistakes: list[Mistake] = []
    parsed: StackFile | None = None
    try:
        parsed = StackFile.model_validate({"caches": caches or {}}, context={"is_root": is_root})
    except ValidationError as error:
        mistakes += [from_pydantic(line, StackFile) for line in error.errors()]
    upstreams = upstreams_as_written(caches)
    mistakes += across_upstreams(upstreams)
    mistakes += _in_passwords(passwords, upstreams, are_secret=passwords_are_secret)
    if mistakes or parsed is None:
        lines = "\n".join(f"  {mistake}" for mistake in mistakes)
        raise SettingsError(f"Pulumi.{stack}.yaml has mistakes, nothing was changed:\n{lines}")
    secrets = {host: SecretStr(password) for host, password in (passwords or {}).items()}
    return StackSettings(stack, parsed.caches, secrets)


def _object(config: pulumi.Config, key: str) -> Any:
    """The value of a key, or its text where that is no object: `parse` says what is wrong."""
    try:
        return config.get_object(key)
    except pulumi.ConfigTypeError:
        return config.get(key)


def _in_passwords(
    passwords: Any, upstreams: Mapping[str, Mapping[str, Any]], *, are_secret: bool
) -> Iterator[Mistake]:
    if passwords is not None and not isinstance(passwords, Mapping):
        yield Mistake(("passwords",), "found no mapping; allowed: registry host to password")
        return
    with_user = {
        host for host, upstream in upstreams.items() if upstream.get("username") is not None
    }
    for host, password in (passwords or {}).items():
        path = ("passwords", host)
        if not are_secret:
            yield Mistake(path, f"found in plain text; allowed: encrypted, set with {_set(host)}")
        if host not in with_user:
            yield Mistake(path, f"found, but caches.upstreams has no username for {host}")
        if not isinstance(password, str) or not password:
            yield Mistake(path, "found no text; allowed: a password")
    for host in sorted(with_user - set(passwords or {})):
        yield Mistake(("passwords", host), f"missing, for its username; set it with {_set(host)}")


def _set(host: str) -> str:
    return f"pulumi config set --secret --path 'passwords[\"{host}\"]'"
