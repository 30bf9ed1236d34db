"""Ports in use, in particular on macOS, where AirPlay Receiver listens on some of all addresses."""

import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from talos_registry_cache.engine import ports

LOOPBACK = "127.0.0.1"


@pytest.fixture
def macos(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that shares the ports of sockets on all addresses."""
    monkeypatch.setattr("platform.system", lambda: "Darwin")
    monkeypatch.setattr(socket.socket, "bind", lambda *_: None)


@pytest.fixture
def used() -> Iterator[int]:
    with socket.create_server(("0.0.0.0", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def unused() -> int:
    with socket.create_server((LOOPBACK, 0)) as server:
        number: int = server.getsockname()[1]
    return number


def test_a_port_of_all_addresses_is_in_use_although_macos_would_share_it(
    used: int, unused: int, request: pytest.FixtureRequest
) -> None:
    request.getfixturevalue("macos")

    assert not ports.can_bind(LOOPBACK, used)
    assert ports.can_bind(LOOPBACK, unused)
    assert ports.is_own_address(LOOPBACK)


@pytest.mark.parametrize(
    ("system", "port", "is_airplay"),
    [
        ("Darwin", 5000, True),
        ("Darwin", 7000, True),
        ("Darwin", 5001, False),
        ("Linux", 5000, False),
    ],
)
def test_airplay_receiver_is_named_for_its_ports_on_macos(
    monkeypatch: pytest.MonkeyPatch, system: str, port: int, *, is_airplay: bool
) -> None:
    monkeypatch.setattr("platform.system", lambda: system)
    engine: Any = SimpleNamespace(containers=SimpleNamespace(list=lambda **_: []))

    user = ports.user_of(port, engine)

    assert ("AirPlay Receiver" in user) is is_airplay
    assert ("System Settings > General > AirDrop & Handoff" in user) is is_airplay


def test_a_container_that_has_the_port_is_named_instead_of_airplay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("platform.system", lambda: "Darwin")
    found = [SimpleNamespace(name="their-registry")]
    engine: Any = SimpleNamespace(containers=SimpleNamespace(list=lambda **_: found))

    assert ports.user_of(5000, engine) == "the container their-registry"
