"""Work on the storages of several caches."""

from types import SimpleNamespace
from typing import Any

import pytest

from talos_registry_cache.cli import caches
from talos_registry_cache.engine import processes


def test_a_stopped_front_is_started_even_if_its_registry_does_not_start(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started = []

    def start_again(_: Any, name: str) -> bool:
        started.append(name)
        if name == "registry":
            raise processes.ProcessError("registry is stopped and does not start")
        return True

    monkeypatch.setattr(processes, "start_again", start_again)
    engine: Any = None
    cache: Any = SimpleNamespace(registry="docker.io", processes=("registry", "front"))

    caches._start_again(engine, cache)

    assert started == ["registry", "front"]
    assert "docker.io: started its cache" in capsys.readouterr().err
