"""A container on another network requests the mirrors, as nodes do."""

from types import SimpleNamespace
from typing import Any

import pytest
from docker.errors import NotFound

from talos_registry_cache.engine import reachability, temporary_container
from talos_registry_cache.engine.reachability import ReachabilityError

MIRRORS = {"docker.io": "https://172.17.0.1:5000", "quay.io": "http://172.17.0.1:5002"}
HUB, QUAY = "http://172.17.0.1:5000/v2/", "http://172.17.0.1:5002/v2/"


@pytest.mark.parametrize(
    ("mirror", "published", "expected"),
    [
        ("http://172.17.0.1:5000", ["127.0.0.1", "172.17.0.1"], True),
        ("http://172.17.0.1:5000", ["0.0.0.0"], True),
        ("http://172.17.0.1:5000", [""], True),
        ("http://host.docker.internal:5000", ["127.0.0.1"], True),
        # For tools on this machine only.
        ("http://172.17.0.1:5000", ["127.0.0.1"], False),
        ("http://127.0.0.1:5000", ["127.0.0.1"], False),
        ("http://127.0.0.1:5000", ["0.0.0.0"], False),
        ("http://localhost:5000", ["127.0.0.1"], False),
    ],
)
def test_mirrors_on_loopback_or_an_address_without_a_port_are_not_for_nodes(
    mirror: str, published: list[str], *, expected: bool
) -> None:
    assert reachability.is_for_nodes(mirror, published) is expected


class Container:
    """A temporary container that prints what its requests returned."""

    def __init__(self, printed: str) -> None:
        self.printed = printed
        self.removed = False

    def start(self) -> None:
        pass

    def wait(self, *, timeout: float) -> None:
        assert timeout > reachability.ANSWER_WITHIN_S

    def logs(self, *, stderr: bool) -> bytes:
        assert not stderr, "the output would be mixed with messages"
        return self.printed.encode()


def engine(*networks: str) -> Any:
    """An engine with networks."""

    def get(name: str) -> None:
        if name not in networks:
            raise NotFound(f"network {name} not found")

    return SimpleNamespace(networks=SimpleNamespace(get=get))


def problems(monkeypatch: pytest.MonkeyPatch, printed: str) -> dict[str, str]:
    container = Container(printed)

    def create(_: Any, image: str, __: str, **settings: Any) -> Container:
        assert image == "an image"
        assert settings["command"] == [HUB, QUAY]
        return container

    monkeypatch.setattr(temporary_container, "create", create)
    monkeypatch.setattr(temporary_container, "remove", lambda one: setattr(one, "removed", True))
    try:
        return reachability.problems(engine("bridge"), "an image", MIRRORS)
    finally:
        assert container.removed


REFUSED = "can't connect to remote host (172.17.0.1): Connection refused"


@pytest.mark.parametrize(
    ("printed", "found"),
    [
        (f"{QUAY} answer\n{HUB} answer\n", {}),
        (f"{HUB} answer\n{QUAY} wget: {REFUSED}\n", {"quay.io": REFUSED}),
        # A container that is killed after its time prints nothing.
        (f"{HUB} \n", dict.fromkeys(MIRRORS, reachability.NO_ANSWER)),
    ],
)
def test_mirrors_that_do_not_answer_are_found_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, printed: str, found: dict[str, str]
) -> None:
    assert problems(monkeypatch, printed) == found


def test_an_engine_without_such_a_network_is_an_error() -> None:
    with pytest.raises(ReachabilityError, match=r"cannot try .* network bridge not found"):
        reachability.problems(engine("host"), "an image", MIRRORS)


@pytest.mark.parametrize(
    ("problem", "cause"),
    [
        (reachability.NO_ANSWER, "a firewall drops packets"),
        (REFUSED, "no port is published at this address (caches.publishOn)"),
        ("bad address 'caches.test'", "set caches.mirrorHost to an address"),
    ],
)
def test_the_message_has_what_was_tried_and_the_likely_cause(problem: str, cause: str) -> None:
    message = reachability.explained({"docker.io": problem}, MIRRORS)

    assert f"docker.io at https://172.17.0.1:5000: {problem}" in message
    assert cause in message
    assert "quay.io" not in message
