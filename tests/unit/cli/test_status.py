from typing import Any

import pytest

from talos_registry_cache.cli.commands import status
from talos_registry_cache.cli.stack import Cache

WHOLE = f"{status.HEAD}4\t.\n\n".encode()
CUT = b"# HELP go_gc_duration_seconds\n"


class Engine:
    """An engine whose containers answer a probe with these outputs, one after another."""

    def __init__(self, *outputs: bytes) -> None:
        self.outputs = list(outputs)

    @property
    def containers(self) -> "Engine":
        return self

    def get(self, _: str) -> "Engine":
        return self

    def exec_run(self, *_: Any, **__: Any) -> tuple[int, bytes]:
        return 0, self.outputs.pop(0)


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch) -> Cache:
    monkeypatch.setattr(Cache, "is_running", True)
    return Cache.__new__(Cache)


@pytest.fixture(autouse=True)
def _named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Cache, "name", "registry-dev-docker.io")
    monkeypatch.setattr(Cache, "is_service", False)
    monkeypatch.setattr(Cache, "storage", "registry-dev-docker.io")


def test_a_truncated_probe_is_repeated(cache: Cache) -> None:
    engine: Any = Engine(CUT, WHOLE)

    assert status._usage(engine, cache) == status.Usage(0, 0, 4096, None)


def test_a_cache_whose_probes_are_all_truncated_is_shown_without_numbers(cache: Cache) -> None:
    engine: Any = Engine(CUT, CUT, CUT)

    assert status._usage(engine, cache) is None
