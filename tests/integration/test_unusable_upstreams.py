"""An upstream whose blobs distribution cannot cache: `warm` and `status` say why, at once."""

import itertools
from http import HTTPStatus

import pytest

from talos_registry_cache.cli.errors import ExitCode
from talos_registry_cache.registry.errors import CANNOT_BE_CACHED
from tests.integration.conftest import NewStack
from tests.integration.support import gate
from tests.integration.support.cachectl import Cachectl
from tests.integration.support.gate import Fault
from tests.integration.support.stack import upstreams
from tests.integration.support.upstream import Upstream
from tests.integration.support.warming import REGISTRY, push


@pytest.mark.parametrize(
    "fault",
    [gate.status(HTTPStatus.UNAUTHORIZED), gate.status(HTTPStatus.FORBIDDEN), gate.without_length],
    ids=["401", "403", "no length"],
)
def test_warm_and_status_say_at_once_that_the_upstream_cannot_be_cached(
    new_stack: NewStack, upstream: Upstream, fault: Fault
) -> None:
    pushed, image = push(upstream)
    with gate.guarding(upstream, "none") as before:
        for blob in image.blobs:
            before.fail(blob.digest, *itertools.repeat(fault, 50), methods=("HEAD",))
        made = new_stack({"upstreams": upstreams(before.url, REGISTRY)})
        made.up()

        cachectl = Cachectl(made.name, made.folder)
        before_that = cachectl("status")
        warmed = cachectl("warm", f"{REGISTRY}/{pushed.name}")
        after_that = cachectl("status")

        heads = [one for one in before.served if one.startswith("HEAD") and "/blobs/" in one]
    assert warmed.code == ExitCode.NOT_ALL_THERE
    assert "answers HEAD for blobs with their length" in warmed.err
    assert len(heads) == len(image.blobs)
    assert CANNOT_BE_CACHED not in before_that.err
    assert f"{REGISTRY}: its blobs cannot be cached: {CANNOT_BE_CACHED}" in after_that.err
