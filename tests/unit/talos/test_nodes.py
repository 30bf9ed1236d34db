import pytest

from talos_registry_cache.talos import nodes
from talos_registry_cache.talos.nodes import Node


@pytest.mark.parametrize(
    ("found", "role"),
    [
        ("init", "controlplane"),
        ("controlplane", "controlplane"),
        ("join", "worker"),
        ("worker", "worker"),
        ("unknown", "worker"),
    ],
)
def test_old_and_new_names_of_roles(found: str, role: str) -> None:
    assert nodes.role(found) == role


EXISTING = [Node("c", "controlplane", "10.5.0.2", "running"), Node("w", "worker", "", "exited")]


def test_missing_nodes_are_problems() -> None:
    assert list(nodes.problems(EXISTING, {"controlplane": 3, "worker": 1})) == [
        "1 of 3 controlplane nodes exist: c"
    ]


def test_stopped_nodes_are_not_missing() -> None:
    assert list(nodes.problems(EXISTING, {"controlplane": 1, "worker": 1})) == []
    assert list(nodes.not_running(EXISTING)) == ["w is exited, not running"]
