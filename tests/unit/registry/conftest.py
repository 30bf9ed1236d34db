"""What the tests of the registry room share."""

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
    """A cache that has kept nothing yet of what its upstream has."""
    with serving(TinyRegistry(caches=True)) as running:
        yield running
