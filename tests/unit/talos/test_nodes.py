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
def test_every_name_that_a_role_ever_had(found: str, role: str) -> None:
    assert nodes.role(found) == role


def test_a_whole_cluster_has_no_problems() -> None:
    there = [Node("c", "controlplane", "10.5.0.2", "running")]
    assert list(nodes.problems(there, {"controlplane": 1, "worker": 0})) == []


def test_problems_name_the_nodes_that_are_there() -> None:
    there = [
        Node("c", "controlplane", "10.5.0.2", "running"),
        Node("w", "worker", "", "exited"),
    ]
    assert list(nodes.problems(there, {"controlplane": 3, "worker": 1})) == [
        "1 of 3 controlplane nodes are there: c",
    ]


def test_a_node_that_has_stopped_is_not_missing() -> None:
    there = [
        Node("c", "controlplane", "10.5.0.2", "running"),
        Node("w", "worker", "", "exited"),
    ]
    assert list(nodes.problems(there, {"controlplane": 1, "worker": 1})) == []
    assert list(nodes.not_running(there)) == ["w is exited, not running"]
