"""Pulls as they happen, from the logs of fronts."""

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from talos_registry_cache.cli import console, stack
from talos_registry_cache.cli.__main__ import app
from talos_registry_cache.cli.commands import watch
from talos_registry_cache.cli.errors import UsageError
from talos_registry_cache.cli.stack import Stack

LINE = (
    '10.5.0.2 - - [27/Nov/2026:18:30:00 +0000] "GET /v2/app/{} HTTP/1.1" 200 1000 "-" '
    '"containerd" 1.000 {}\n'
)
LOG = (
    LINE.format("manifests/1?ns=docker.io", "miss")
    + "2026/11/27 18:30:00 [warn] 29#29: a client closed its connection\n"
    + LINE.format("blobs/sha256:ab?ns=docker.io", "shared")
).encode()


def watched(monkeypatch: pytest.MonkeyPatch, *arguments: str, has_front: bool = True) -> Result:
    """The result of `cachectl watch` with a front whose log ends."""
    front = SimpleNamespace(logs=lambda **_: [LOG[:40], LOG[40:]])
    engine: Any = SimpleNamespace(containers={"front": front})
    cache: Any = SimpleNamespace(
        registry="docker.io", name="front", has_front=has_front, is_service=False
    )

    @contextmanager
    def opened(_: str | None) -> Iterator[Stack]:
        yield Stack("team", {"docker.io": cache}, engine)

    monkeypatch.setattr(stack, "opened", opened)
    return CliRunner().invoke(app, ["watch", *arguments])


def test_without_a_terminal_each_request_is_a_line_before_the_table(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done = watched(monkeypatch)

    assert done.exit_code == 0, done.output
    lines = [line.split() for line in done.stdout.splitlines() if line.strip()]
    assert lines[0][1:5] == ["10.5.0.2", "GET", "manifest", "docker.io/app:1"]
    assert lines[1][4] == "docker.io/app@sha256:ab"
    counted = ["0", "1", "0", "1", "0", "2.0", "kB", "2.0", "kB/s"]
    assert lines[-2] == ["docker.io/app:1", "10.5.0.2", *counted]
    assert lines[-1] == ["total", *counted]


def test_on_a_terminal_the_table_replaces_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(console, "out", Console(file=screen, force_terminal=True, width=120))

    done = watched(monkeypatch)

    assert done.exit_code == 0, done.output
    live, erased, final = screen.getvalue().rpartition("\x1b[2K")
    assert erased
    assert "docker.io/app:1" in live
    assert final.count("docker.io/app:1") == 1


def test_scripts_get_an_object_for_each_request(monkeypatch: pytest.MonkeyPatch) -> None:
    manifest, blob = map(json.loads, watched(monkeypatch, "--json").stdout.splitlines())

    assert blob == {
        "registry": "docker.io", "time": "2026-11-27T18:30:00+00:00", "client": "10.5.0.2",
        "method": "GET", "kind": "blob", "repository": "app", "reference": "sha256:ab",
        "namespace": "docker.io", "status": 200, "size": 1000, "seconds": 1.0,
        "result": "shared", "agent": "containerd",
    }  # fmt: skip
    assert (manifest["kind"], manifest["result"]) == ("manifest", "miss")


def test_ctrl_c_ends_it_with_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any) -> Iterator[None]:
        yield None
        raise KeyboardInterrupt

    monkeypatch.setattr(watch, "_requests", interrupted)

    done = watched(monkeypatch)

    assert done.exit_code == 0
    assert "total" in done.stdout


def test_a_cache_without_a_front_cannot_be_watched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done = watched(monkeypatch, has_front=False)

    assert isinstance(done.exception, UsageError)
    assert "has no front" in str(done.exception)
