"""Stack files for tests, their mistakes, and parts of parsed settings."""

import copy
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import pytest
import yaml

from components import settings
from components.settings import Caches, SettingsError, StackSettings
from components.settings.mistakes import in_yaml
from components.settings.storage import VolumeStorage

ONE_UPSTREAM = {"upstreams": {"docker.io": None}}


def of(below: str | Mapping[str, Any], key: str = "caches") -> dict[str, Any]:
    """A stack file with one cache and another key, given as YAML."""
    value = yaml.safe_load(below) if isinstance(below, str) else below
    if key == "caches":
        return {"caches": {**ONE_UPSTREAM, **value}}
    return {"caches": ONE_UPSTREAM, key: value}


def mistakes(
    written: Mapping[str, Any], plain: Collection[str] = (), stack: str = "dev"
) -> list[tuple[str, str]]:
    """The mistakes in a stack file, each with its path and text."""
    try:
        settings.parse(stack, written, plain)
    except SettingsError as error:
        head, *lines = str(error).split("\n")
        assert head == f"Pulumi.{stack}.yaml has mistakes, nothing was changed:"
        assert lines
        found = [line.removeprefix("  ").partition(": ") for line in lines]
        return [(path, text) for path, _, text in found]
    return []


def assert_refused(written: Mapping[str, Any], path: str, kind: str, **more: Any) -> None:
    """Assert that the only mistake has this path and kind, and shows no password."""
    ((found, text),) = mistakes(written, **more)
    assert found == path
    assert kind in text
    assert "hunter2" not in text


def assert_wrong(base: Mapping[str, Any], path: str, value: Any, kind: str) -> None:
    """Assert that a valid stack file has one mistake after replacing the value at a path.

    The path has spaces between its keys.
    """
    keys = [int(key) if key.isdigit() else key for key in path.split()]
    assert_refused(replaced(base, keys, value), in_yaml(tuple(keys)), kind)


def replaced(written: Any, path: Sequence[str | int], value: Any) -> Any:
    """A copy with another value at a path."""
    if not path:
        return value
    changed = copy.copy(written) if written is not None else {}
    head, rest = path[0], path[1:]
    below = changed[head] if isinstance(head, int) or head in changed else None
    changed[head] = replaced(below, rest, value)
    return changed


def each(base: Mapping[str, Any], rows: Iterable[tuple[str, Sequence[Any], str]]) -> list[Any]:
    """Parameters of a test, from a table with several invalid values per row."""
    return [
        # IDs without the value: certificates differ in each pytest process.
        pytest.param(base, path, value, kind, id=f"{path} {kind[:20]} {number}")
        for path, values, kind in rows
        for number, value in enumerate(values)
    ]


def caches_of(parsed: StackSettings) -> Caches:
    """The caches of a stack that declares them."""
    assert parsed.caches is not None
    return parsed.caches


def parsed_caches(below: str | Mapping[str, Any], **secrets: Any) -> Caches:
    """The caches of a valid stack file."""
    return caches_of(settings.parse("dev", {**of(below), **secrets}))


def volume_storage_of(parsed: StackSettings) -> VolumeStorage:
    """The storage of a stack whose caches use volumes."""
    storage = caches_of(parsed).storage
    assert isinstance(storage, VolumeStorage)
    return storage
