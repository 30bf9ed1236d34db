"""The settings of a stack, as people write them in Pulumi.<stack>.yaml.

The one place that reads `pulumi.Config`. What is wrong is reported before anything is touched:
all mistakes at once, each with its path in the YAML, what was found and what is allowed.
"""

import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pulumi
from pulumi.runtime.config import CONFIG
from pydantic import Field, ValidationError, field_validator

from . import secrets as secrets_
from .caches import (
    Caches,
    across_upstreams,
    upstreams_as_written,
    within_caches,
)
from .clusters import (
    Cluster,
    across_clusters,
    clusters_as_written,
    in_mirrors,
)
from .images import Images
from .mistakes import Mistake, SettingsError, from_pydantic, unknown_key
from .secrets import Secrets
from .values import ClusterName, Model, Name

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


class StackFile(Model):
    """The keys of a stack file, without the project's name before them."""

    caches: Caches | None = Field(default=None, description="The caching proxies of the stack")
    clusters: dict[ClusterName, Cluster] = Field(
        default={}, description="The local Talos clusters of the stack, by name"
    )
    images: Images | None = Field(
        default=None, description="Images that are brought into the caches ahead of any node"
    )
    mirrors_from: Name | None = Field(
        default=None,
        description="Name of the stack whose caches the clusters use, where this one has none",
    )

    @field_validator("clusters", mode="before")
    @classmethod
    def _fill_in_nothing(cls, value: Any) -> Any:
        """`demo:` with nothing behind it is YAML for null, and a cluster all by default."""
        if not isinstance(value, Mapping):
            return value
        return {name: {} if cluster is None else cluster for name, cluster in value.items()}


KEYS = (*(str(field.alias) for field in StackFile.model_fields.values()), *secrets_.KEYS)
"""The keys that a stack file has below this project's name."""


@dataclass(frozen=True, slots=True)
class StackSettings:
    """All that a stack is configured with.

    Attributes:
        stack: the stack's name.
        caches: its caching proxies, or None where it has none.
        clusters: its local clusters, by name.
        images: the images that are in its caches ahead of any node, or None.
        mirrors_from: the stack whose caches the clusters use, where it has none of its own.
        secrets: its secrets.
    """

    stack: str
    caches: Caches | None
    clusters: Mapping[str, Cluster]
    images: Images | None
    mirrors_from: str | None
    secrets: Secrets


def load() -> StackSettings:
    """Read the settings of the stack that is running.

    Raises:
        SettingsError: they have mistakes.
    """
    config = pulumi.Config()
    return parse(
        pulumi.get_stack(),
        caches=_object(config, "caches"),
        clusters=_object(config, "clusters"),
        images=_object(config, "images"),
        mirrors_from=config.get("mirrorsFrom"),
        # Not get_secret_object: an Output cannot be checked before anything is declared.
        secrets={key: _object(config, key) for key in secrets_.KEYS},
        plain={
            key
            for key in secrets_.KEYS
            if not pulumi.runtime.is_config_secret(config.full_key(key))
        },
        unknown=_keys(config) - {*KEYS},
        is_root=os.name == "posix" and os.geteuid() == 0,
    )


def parse(
    stack: str,
    *,
    caches: Any,
    clusters: Any = None,
    images: Any = None,
    mirrors_from: Any = None,
    secrets: Mapping[str, Any] | None = None,
    plain: Collection[str] = (),
    unknown: Collection[str] = (),
    is_root: bool = False,
) -> StackSettings:
    """Check the values of the configuration keys of a stack.

    Args:
        stack: the stack's name.
        caches: the value of the key `caches`.
        clusters: the value of the key `clusters`.
        images: the value of the key `images`.
        mirrors_from: the value of the key `mirrorsFrom`.
        secrets: the values of the keys that are secret, by key.
        plain: those of these keys that are not encrypted in the stack file.
        unknown: the keys below the project's name that are none of these.
        is_root: whether ports below 1024 may be used.

    Raises:
        SettingsError: the values have mistakes.
    """
    mistakes = [Mistake((key,), unknown_key(key, KEYS)) for key in sorted(unknown)]
    parsed: StackFile | None = None
    written = _written(caches, clusters, images, mirrors_from)
    try:
        parsed = StackFile.model_validate(
            written,
            context={"is_root": is_root, "stack": stack},
            by_alias=True,
            by_name=False,
        )
    except ValidationError as error:
        mistakes += [from_pydantic(line, StackFile) for line in error.errors()]
    upstreams = upstreams_as_written(caches)
    named = clusters_as_written(clusters)
    mistakes += across_upstreams(upstreams)
    mistakes += across_clusters(named)
    mistakes += _in_combination(written)
    if "caches" in written:
        mistakes += in_mirrors(named, upstreams)
    # What is left out comes as nothing of its type: see Pulumi.yaml.
    nothing = {key: {} if key in secrets_.MAPPINGS else "" for key in secrets_.KEYS}
    found = {
        key: value for key, value in (secrets or {}).items() if value not in (None, nothing[key])
    }
    mistakes += secrets_.mistakes(found, plain, caches)
    if parsed and parsed.caches:
        mistakes += within_caches(parsed.caches)
        mistakes += secrets_.in_key(parsed.caches, found.get("tlsKey"))
    refuse(stack, mistakes)
    assert parsed is not None  # noqa: S101 - else there were mistakes
    return StackSettings(
        stack,
        parsed.caches,
        parsed.clusters,
        parsed.images,
        parsed.mirrors_from,
        secrets_.parsed(found),
    )


def refuse(stack: str, mistakes: Iterable[Mistake]) -> None:
    """Refuse the settings of a stack if there are mistakes in them.

    Raises:
        SettingsError: there are; the message lists them all.
    """
    lines = "".join(f"\n  {mistake}" for mistake in mistakes)
    if lines:
        raise SettingsError(f"Pulumi.{stack}.yaml has mistakes, nothing was changed:{lines}")


def _object(config: pulumi.Config, key: str) -> Any:
    """The value of a key, or its text where that is no object: `parse` says what is wrong."""
    try:
        return config.get_object(key)
    except (pulumi.ConfigTypeError, RecursionError):
        return config.get(key)


def _keys(config: pulumi.Config) -> set[str]:
    """The keys that a stack file has below this project's name."""
    own = config.full_key("")
    found = (CONFIG.get(), pulumi.runtime.get_config_env())
    return {key.removeprefix(own) for keys in found for key in keys if key.startswith(own)}


def _written(caches: Any, clusters: Any, images: Any, mirrors_from: Any) -> dict[str, Any]:
    """The keys that a stack file has; one with no clusters must have caches."""
    keys = {
        "caches": caches,
        "clusters": clusters,
        "images": images,
        "mirrorsFrom": mirrors_from,
    }
    # What is left out comes as nothing of its type: see Pulumi.yaml.
    written = {key: value for key, value in keys.items() if value not in (None, {}, "")}
    return written if "clusters" in written else {"caches": {}, **written}


def _in_combination(written: Mapping[str, Any]) -> Iterator[Mistake]:
    if "images" in written and "caches" not in written:
        yield Mistake(("images",), "found without caches; allowed: beside them")
    if "mirrorsFrom" in written and written.get("caches"):
        text = "found beside caches; allowed: one of both, mirrors of its own or another stack's"
        yield Mistake(("mirrorsFrom",), text)
