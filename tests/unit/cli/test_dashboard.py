import json
from itertools import combinations
from typing import Any

import pytest

from talos_registry_cache.cli import dashboard


@pytest.fixture
def written() -> dict[str, Any]:
    return dict(json.loads(dashboard.dashboard("team", 30)))


def test_it_shows_the_stack_first_and_lets_choose_another(written: dict[str, Any]) -> None:
    variables = {one["name"]: one for one in written["templating"]["list"]}

    assert list(variables) == ["datasource", "stack", "upstream", "node"]
    assert variables["stack"]["current"]["value"] == "team"


def test_every_query_is_about_what_is_chosen_and_asks_the_chosen_server(
    written: dict[str, Any],
) -> None:
    for panel in written["panels"]:
        for target in panel["targets"]:
            for name in ("stack", "upstream", "node"):
                assert f'"${name}"' in target["expr"]
            assert target["datasource"]["uid"] == "${datasource}"


def test_no_rate_is_taken_over_less_than_the_caches_are_asked(written: dict[str, Any]) -> None:
    assert {panel["interval"] for panel in written["panels"]} == {"30s"}


def test_panels_are_on_the_grid_and_none_hides_another(written: dict[str, Any]) -> None:
    places = [panel["gridPos"] for panel in written["panels"]]

    assert all(place["x"] + place["w"] <= dashboard.COLUMNS for place in places)
    assert not any(
        one["x"] < other["x"] + other["w"]
        and other["x"] < one["x"] + one["w"]
        and one["y"] < other["y"] + other["h"]
        and other["y"] < one["y"] + one["h"]
        for one, other in combinations(places, 2)
    )
    assert len({panel["id"] for panel in written["panels"]}) == len(places)
