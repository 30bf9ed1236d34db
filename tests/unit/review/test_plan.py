"""What Pulumi prints of a preview is read into changes, and what they do to data."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from talos_registry_cache.review import plan
from talos_registry_cache.review.plan import (
    CLUSTER,
    CREDENTIALS,
    SECRET,
    VOLUME,
    Change,
    Fate,
    Operation,
)

PROXY = "talos-registry-cache:caches:CachingProxy"
CONTAINER = f"{PROXY}$docker:index/container:Container"
STORAGE = f"{PROXY}${VOLUME}"

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


def _step(
    op: str, kind: str, old: dict[str, Any] | None, new: dict[str, Any] | None, **more: Any
) -> dict[str, Any]:
    states = {"oldState": old, "newState": new}
    urn = f"urn:pulumi:dev::talos-registry-cache::{kind}::it"
    return {"op": op, "urn": urn, **{key: state for key, state in states.items() if state}, **more}


def _changes(*steps: dict[str, Any]) -> list[Change]:
    return plan.changes(json.dumps({"steps": steps, "changeSummary": {}}))


def test_changed_port_is_shown_with_what_it_replaces() -> None:
    (change,) = _changes(
        _step(
            "replace",
            CONTAINER,
            {"inputs": {"name": "registry-dev", "ports": [{"external": 5000, "ip": "127.0.0.1"}]}},
            {"inputs": {"name": "registry-dev", "ports": [{"external": 5001, "ip": "127.0.0.1"}]}},
            replaceReasons=["ports"],
            detailedDiff={"ports[0].external": {"kind": "update-replace"}},
        )
    )
    assert (change.name, change.operation, change.fate) == ("it", Operation.REPLACE, Fate.NO_DATA)
    (port,) = change.properties
    assert (port.path, port.old, port.new, port.replaces) == ("ports[0].external", 5000, 5001, True)


def test_order_that_means_nothing_to_the_provider_is_no_difference() -> None:
    (change,) = _changes(
        _step(
            "update",
            CONTAINER,
            {"inputs": {"memory": 1, "ports": ["a", "b"]}},
            {"inputs": {"memory": 2, "ports": ["b", "a"]}},
            detailedDiff={"memory": {"kind": "update"}},
        )
    )
    assert [one.path for one in change.properties] == ["memory"]


def test_secret_that_differs_is_told_and_not_shown() -> None:
    (change,) = _changes(
        _step(
            "replace",
            CONTAINER,
            {"inputs": {"uploads": SECRET}},
            {"inputs": {"uploads": SECRET}},
            detailedDiff={"uploads": {"kind": "update-replace"}},
            replaceReasons=["uploads"],
        )
    )
    assert [(one.path, one.old, one.new) for one in change.properties] == [
        ("uploads", SECRET, SECRET)
    ]


@pytest.mark.parametrize("op", ["delete", "replace", "delete-replaced", "create-replacement"])
@pytest.mark.parametrize(
    ("kind", "old", "fate"),
    [
        (STORAGE, {}, Fate.LOST),
        (STORAGE, {"retainOnDelete": True}, Fate.KEPT),
        (VOLUME, {}, Fate.LOST),
        (f"{CREDENTIALS}${VOLUME}", {}, Fate.NO_DATA),
        (CLUSTER, {}, Fate.LOST),
        (CONTAINER, {}, Fate.NO_DATA),
    ],
)
def test_what_holds_data_and_is_not_kept_loses_it(
    op: str, kind: str, old: dict[str, Any], fate: Fate
) -> None:
    (change,) = _changes(_step(op, kind, {"inputs": {"name": "x"}, **old}, {"inputs": {}}))
    assert change.fate is fate


@pytest.mark.parametrize("op", ["create", "update", "import"])
def test_what_is_neither_replaced_nor_deleted_loses_nothing(op: str) -> None:
    (change,) = _changes(_step(op, STORAGE, None, {"inputs": {}}))
    assert change.fate is Fate.NO_DATA


def test_replacement_in_several_steps_is_one_change() -> None:
    old, new = {"inputs": {"name": "a"}}, {"inputs": {"name": "b"}}
    (change,) = _changes(
        _step("delete-replaced", STORAGE, old, None),
        _step("replace", STORAGE, old, new),
        _step("create-replacement", STORAGE, None, new),
    )
    assert change.operation is Operation.REPLACE
    assert change.fate is Fate.LOST
    assert [one.path for one in change.properties] == ["name"]


def test_volume_that_is_no_longer_kept_is_a_change_though_pulumi_sees_none() -> None:
    not_kept: dict[str, Any] = {"inputs": {}}
    kept = {**not_kept, "retainOnDelete": True}
    (change,) = _changes(_step("same", STORAGE, kept, not_kept))
    assert change.operation is Operation.UPDATE
    assert [(one.old, one.new) for one in change.properties] == [(True, False)]
    assert _changes(_step("same", STORAGE, kept, kept)) == []


def test_stack_and_providers_are_no_resources_of_anybodys() -> None:
    kinds = ("pulumi:pulumi:Stack", "pulumi:providers:docker")
    assert _changes(*(_step("create", kind, None, {"inputs": {}}) for kind in kinds)) == []


def test_errors_leave_out_the_one_that_says_there_were_some() -> None:
    telling = {"message": "error: port is wrong\n", "severity": "error"}
    empty = {"message": "error: an unhandled error occurred: exit 1\n", "severity": "error"}
    info = {"message": "pulling", "severity": "info"}
    assert plan.errors(json.dumps({"diagnostics": [info, telling, empty]})) == ["port is wrong"]
    assert plan.errors(json.dumps({"diagnostics": [empty]})) != []


@given(VALUES)
def test_nothing_differs_from_itself(value: Any) -> None:
    assert list(plan.differing(value, value)) == []


@given(st.dictionaries(st.text("ab", min_size=1, max_size=3), VALUES, max_size=4), VALUES)
def test_what_differs_is_found(inputs: dict[str, Any], value: Any) -> None:
    changed = {**inputs, "key": value}
    found = list(plan.differing({**inputs, "key": "another thing"}, changed))
    assert [change.path for change in found] == ["key"]


def test_key_with_a_dot_is_quoted_in_a_path() -> None:
    old, new = {"mirrors": {"docker.io": 1}}, {"mirrors": {"docker.io": 2}}
    assert [one.path for one in plan.differing(old, new)] == ['mirrors["docker.io"]']
