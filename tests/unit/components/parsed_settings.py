"""Settings as tests write them, the mistakes in them, and parts of what is parsed."""

from collections.abc import Collection, Mapping
from typing import Any

import yaml

from components import settings
from components.settings import Caches, SettingsError, StackSettings
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
    """Assert that there is one mistake, at a path and of a kind: words that its text has."""
    ((found, text),) = mistakes(written, **more)
    assert found == path
    assert kind in text


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
