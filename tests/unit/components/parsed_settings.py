"""Settings as tests write them, the mistakes in them, and parts of what is parsed."""

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
    """A stack file with one cache, and a key whose value is given as YAML."""
    value = yaml.safe_load(below) if isinstance(below, str) else below
    if key == "caches":
        return {"caches": {**ONE_UPSTREAM, **value}}
    return {"caches": ONE_UPSTREAM, key: value}


def mistakes(
    written: Mapping[str, Any], plain: Collection[str] = (), stack: str = "dev"
) -> list[tuple[str, str]]:
    """The mistakes in a stack file: the path and the text of each, or none if it is right."""
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
    """Assert that there is one mistake, at a path and with words of its kind, but no password."""
    ((found, text),) = mistakes(written, **more)
    assert found == path
    assert kind in text
    assert "hunter2" not in text


def assert_wrong(base: Mapping[str, Any], path: str, value: Any, kind: str) -> None:
    """Assert that a stack file has one mistake, at a value that replaces another one.

    Args:
        base: the stack file, which is right.
        path: the place of the value, with spaces between the keys.
        value: the value.
        kind: words of the mistake.
    """
    keys = [int(key) if key.isdigit() else key for key in path.split()]
    assert_refused(replaced(base, keys, value), in_yaml(tuple(keys)), kind)


def replaced(written: Any, path: Sequence[str | int], value: Any) -> Any:
    """A copy of what is written with another value at a path."""
    if not path:
        return value
    changed = copy.copy(written) if written is not None else {}
    head, rest = path[0], path[1:]
    below = changed[head] if isinstance(head, int) or head in changed else None
    changed[head] = replaced(below, rest, value)
    return changed


def each(base: Mapping[str, Any], rows: Iterable[tuple[str, Sequence[Any], str]]) -> list[Any]:
    """The rows of a table with several wrong values in each, as parameters of a test."""
    return [
        # Not named by the value: certificates differ in each of pytest's processes.
        pytest.param(base, path, value, kind, id=f"{path} {kind[:20]} {number}")
        for path, values, kind in rows
        for number, value in enumerate(values)
    ]


def caches_of(parsed: StackSettings) -> Caches:
    """The caches of a stack that has some."""
    assert parsed.caches is not None
    return parsed.caches


def parsed_caches(below: str | Mapping[str, Any], **secrets: Any) -> Caches:
    """The caches of a stack file that is right."""
    return caches_of(settings.parse("dev", {**of(below), **secrets}))


def volume_storage_of(parsed: StackSettings) -> VolumeStorage:
    """The storage of a stack that keeps what it has cached in volumes."""
    storage = caches_of(parsed).storage
    assert isinstance(storage, VolumeStorage)
    return storage
