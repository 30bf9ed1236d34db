"""The engine and the upstream of the clusters, for each file of its own."""

from collections.abc import Iterator

import pytest

from tests.integration.support import kubernetes, private_engine
from tests.integration.support.kubernetes import Site


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A private engine, and an upstream with the images of a Talos cluster."""
    if reason := private_engine.why_impossible():
        pytest.skip(reason)
    with kubernetes.site(tmp_path_factory.mktemp("engine")) as made:
        yield made
