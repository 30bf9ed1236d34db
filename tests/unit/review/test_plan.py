"""Pulumi's events become changed resources, with the fate of their data."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pulumi.automation.events import OpType, StepEventMetadata

from talos_registry_cache.review import plan
from talos_registry_cache.review.model import Change, Fate, Operation
from talos_registry_cache.review.plan import CACHED_IMAGES, CLUSTER, CREDENTIALS, SECRET, VOLUME

PROXY = "talos-registry-cache:caches:CachingProxy"
CONTAINER = f"{PROXY}$docker:index/container:Container"
STORAGE = f"{PROXY}${VOLUME}"
CIPHERTEXT = {
    "4dabf18193072939515e22adb298388d": "1b47061264138c4ac30d75fd1eb44270",
    "ciphertext": "[secret]",
}

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


def _step(
    op: str,
    kind: str,
    old: dict[str, Any] | None,
    new: dict[str, Any] | None,
    *,
    diff: str | None = None,
    replaces: str | None = None,
    name: str = "it",
) -> StepEventMetadata:
    kind_of_diff = {"diffKind": "update", "inputDiff": False}
    return StepEventMetadata.from_json(
        {
            "op": op,
            "urn": f"urn:pulumi:dev::talos-registry-cache::{kind}::{name}",
            "old": {"type": kind, **old} if old is not None else None,
            "new": {"type": kind, **new} if new is not None else None,
            "keys": [replaces] if replaces else None,
            "detailedDiff": {diff: kind_of_diff} if diff else None,
        }
    )


def _inputs(**inputs: Any) -> dict[str, Any]:
    return {"inputs": inputs}


def _changes(*steps: StepEventMetadata) -> list[Change]:
    return plan.changes(steps)


def test_changed_port_is_shown_as_a_replacement() -> None:
    old = _inputs(name="registry-dev", ports=[{"external": 5000, "ip": "127.0.0.1"}])
    new = _inputs(name="registry-dev", ports=[{"external": 5001, "ip": "127.0.0.1"}])
    step = _step("replace", CONTAINER, old, new, diff="ports[0].external", replaces="ports")
    (change,) = _changes(step)
    assert (change.name, change.operation, change.fate) == ("it", Operation.REPLACE, Fate.NO_DATA)
    assert change.on_engine == "registry-dev"
    (port,) = change.properties
    assert (port.path, port.old, port.new, port.replaces) == ("ports[0].external", 5000, 5001, True)


def test_difference_that_the_provider_does_not_report_is_left_out() -> None:
    old, new = _inputs(memory=1, ports=["a", "b"]), _inputs(memory=2, ports=["b", "a"])
    (change,) = _changes(_step("update", CONTAINER, old, new, diff="memory"))
    assert [one.path for one in change.properties] == ["memory"]


def test_images_of_a_set_are_compared_whatever_their_places() -> None:
    old, new = _inputs(images=["a", "c", "d"], stack="x"), _inputs(images=["b", "c", "d", "e"])
    (change,) = _changes(_step("update", f"x:ImageSet${CACHED_IMAGES}", old, new))
    assert [(one.path, one.old, one.new) for one in change.properties] == [
        ("images", "a", None),
        ("images", None, "b"),
        ("images", None, "e"),
        ("stack", "x", None),
    ]


@pytest.mark.parametrize("old", [None, plan.UNKNOWN])
def test_images_of_a_set_may_be_missing_or_unknown(old: Any) -> None:
    step = _step("update", CACHED_IMAGES, _inputs(images=old), _inputs(images=["a"]))
    (change,) = _changes(step)
    assert [(one.path, one.new) for one in change.properties] in (
        [("images", "a")],
        [("images", ["a"])],
    )


@pytest.mark.parametrize("shown", [SECRET, CIPHERTEXT])
def test_changed_secret_is_reported_and_hidden(shown: Any) -> None:
    old, new = _inputs(uploads=shown), _inputs(uploads=shown)
    step = _step("replace", CONTAINER, old, new, diff="uploads", replaces="uploads")
    (change,) = _changes(step)
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
def test_replaced_or_deleted_data_is_lost_unless_it_is_kept(
    op: str, kind: str, old: dict[str, Any], fate: Fate
) -> None:
    (change,) = _changes(_step(op, kind, {**_inputs(name="x"), **old}, _inputs()))
    assert change.fate is fate


def test_the_volume_that_a_front_shares_with_its_registry_holds_no_data() -> None:
    (change,) = _changes(_step("delete", VOLUME, _inputs(name="x"), None, name="quay.io-front"))
    assert change.fate is Fate.NO_DATA


def test_steps_of_a_replacement_are_one_change() -> None:
    old, new = _inputs(name="a"), _inputs(name="b")
    (change,) = _changes(
        _step("delete-replaced", STORAGE, old, None),
        _step("replace", STORAGE, old, new),
        _step("create-replacement", STORAGE, None, new),
    )
    assert (change.operation, change.fate) == (Operation.REPLACE, Fate.LOST)
    assert [one.path for one in change.properties] == ["name"]


def test_volume_that_is_no_longer_kept_is_a_change_although_pulumi_reports_none() -> None:
    kept = {**_inputs(), "retainOnDelete": True}
    (change,) = _changes(_step("same", STORAGE, kept, _inputs()))
    assert change.operation is Operation.UPDATE
    assert [(one.old, one.new) for one in change.properties] == [(True, False)]
    assert _changes(_step("same", STORAGE, kept, kept)) == []


def test_events_are_incomplete_if_one_of_the_summary_is_missing() -> None:
    steps = [_step("delete", STORAGE, _inputs(), None), _step("same", PROXY, _inputs(), _inputs())]
    assert plan.is_complete(steps, {OpType.DELETE: 1})
    assert plan.is_complete(steps, {OpType.DELETE: 1, OpType.SAME: 1})
    assert not plan.is_complete(steps, {OpType.DELETE: 2})
    assert not plan.is_complete(steps, {OpType.DELETE: 1, OpType.REPLACE: 1})


@pytest.mark.parametrize("op", ["create", "update", "import"])
def test_other_operations_lose_no_data_and_stack_and_providers_are_left_out(op: str) -> None:
    kinds = (STORAGE, "pulumi:pulumi:Stack", "pulumi:providers:docker")
    (change,) = plan.changes(_step(op, kind, None, _inputs()) for kind in kinds)
    assert change.fate is Fate.NO_DATA


@given(st.dictionaries(st.text("ab", min_size=1, max_size=3), VALUES, max_size=4), VALUES)
def test_difference_is_found_with_a_quoted_path(inputs: dict[str, Any], value: Any) -> None:
    changed = {**inputs, "key": value, "mirrors": {"docker.io": 2}}
    old = {**inputs, "key": "another thing", "mirrors": {"docker.io": 1}}
    found = [change.path for change in plan.differing(old, changed)]
    assert found == ["key", 'mirrors["docker.io"]']
