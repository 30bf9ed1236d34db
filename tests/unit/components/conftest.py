from collections.abc import Iterator

import pytest

from components import engine, talos_cluster


@pytest.fixture(autouse=True)
def _each_test_asks_its_own_engine() -> None:
    engine.discover.cache_clear()
    engine.image_to_run.cache_clear()


@pytest.fixture(autouse=True)
def _each_test_finds_its_own_talosctl() -> Iterator[None]:
    yield
    talos_cluster.find_talosctl.cache_clear()
