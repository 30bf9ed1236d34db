"""The dashboard of `cachectl metrics`, read by the types that Grafana publishes."""

import json
import typing
from collections.abc import Iterator
from typing import Any

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models import dashboard as grafana
from grafana_foundation_sdk.models import prometheus, units
from pydantic import ConfigDict, TypeAdapter, ValidationError

from talos_registry_cache.cli import dashboard

UNITS = {unit for name, unit in vars(units).items() if name[0].isupper()}
LENIENT = ConfigDict(arbitrary_types_allowed=True)


@pytest.fixture
def written() -> dict[str, Any]:
    return dict(json.loads(dashboard.dashboard("dev", 15)))


@pytest.fixture(autouse=True)
def plugins() -> None:
    register_default_plugins()


def test_grafana_knows_every_field_and_its_type(written: dict[str, Any]) -> None:
    assert list(_problems(written)) == []


def test_queries_are_those_of_prometheus_and_units_those_of_grafana(
    written: dict[str, Any],
) -> None:
    panels = grafana.Dashboard.from_json(written).panels or []
    assert len(panels) == len(dashboard.PANELS)
    for panel in panels:
        assert isinstance(panel, grafana.Panel)
        assert all(isinstance(query, prometheus.Dataquery) for query in panel.targets or [])
        assert panel.field_config
        assert panel.field_config.defaults.unit in UNITS


@pytest.mark.parametrize(
    ("field", "value"), [("titel", "Registry caches"), ("refresh", 30), ("schemaVersion", "new")]
)
def test_a_wrong_field_would_be_found(written: dict[str, Any], field: str, value: object) -> None:
    problems = list(_problems({**written, field: value}))

    assert problems
    assert field.casefold() in problems[0].casefold().replace("_", "")


def _problems(written: dict[str, Any]) -> Iterator[str]:
    read = grafana.Dashboard.from_json(written)
    yield from _of_other_types(read, "")
    yield from _lost(written, json.loads(json.dumps(read, cls=JSONEncoder)), "")


def _lost(written: Any, kept: Any, where: str) -> Iterator[str]:
    """What Grafana's types do not have; they add what was left out."""
    if isinstance(written, dict) and isinstance(kept, dict):
        for key, value in written.items():
            yield from _lost(value, kept.get(key), f"{where}.{key}")
    elif isinstance(written, list) and isinstance(kept, list) and len(written) == len(kept):
        for number, (one, other) in enumerate(zip(written, kept, strict=True)):
            yield from _lost(one, other, f"{where}[{number}]")
    elif written != kept:
        yield f"{where}: {written} became {kept}"


def _of_other_types(read: Any, where: str) -> Iterator[str]:
    """What has another type than Grafana's; what reads JSON does not look at that."""
    if isinstance(read, list):
        for number, one in enumerate(read):
            yield from _of_other_types(one, f"{where}[{number}]")
    if not type(read).__module__.startswith(grafana.__package__ or ""):
        return
    for name, kind in typing.get_type_hints(type(read)).items():
        value = getattr(read, name)
        try:
            TypeAdapter(kind, config=LENIENT).validate_python(value)
        except ValidationError as error:
            yield f"{where}.{name}: {error}"
        yield from _of_other_types(value, f"{where}.{name}")
