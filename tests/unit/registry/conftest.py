"""Fixtures of the registry tests."""

from collections.abc import Iterator

import pytest

from tests.unit.registry.support.tiny_registry import TinyRegistry, serving


@pytest.fixture
def registry() -> Iterator[TinyRegistry]:
    """A plain registry."""
    with serving(TinyRegistry()) as running:
        yield running


@pytest.fixture
def cache() -> Iterator[TinyRegistry]:
    """An empty cache."""
    with serving(TinyRegistry(caches=True)) as running:
        yield running
