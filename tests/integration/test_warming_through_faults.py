"""Warming survives passing faults of the upstream, and handles many images at once."""

from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus

import pytest
import requests

from tests.integration.conftest import NewStack
from tests.integration.support import docker_cli, gate
from tests.integration.support.gate import Fault
from tests.integration.support.stack import upstreams
from tests.integration.support.upstream import Upstream
from tests.integration.support.warming import REGISTRY, Warming, push, reference, warm

TINY = (1_000,)
MANY = 60

TOO_MANY = gate.status(HTTPStatus.TOO_MANY_REQUESTS, Retry_After="1")
FAILING = gate.status(HTTPStatus.INTERNAL_SERVER_ERROR)


@pytest.mark.parametrize("fault", [TOO_MANY, FAILING, gate.cut], ids=["429", "500", "cut"])
def test_failed_requests_for_content_are_retried(
    warming: Warming, upstream: Upstream, fault: Fault
) -> None:
    pushed, image = push(upstream)
    warming.gate.fail(image.manifest.digest, fault)
    warming.gate.fail(image.blobs[-1].digest, fault, fault)

    warming.warm(pushed)

    warming.gate.recover()
    warming.assert_cached(pushed)


@pytest.mark.parametrize("fault", [TOO_MANY, FAILING], ids=["429", "500"])
def test_failed_requests_for_tags_are_retried(
    warming: Warming, upstream: Upstream, fault: Fault
) -> None:
    pushed, _ = push(upstream)
    # The cache retries once, and then answers 404.
    warming.gate.fail(pushed.tag, fault, fault, methods=("HEAD", "GET"))

    warming.warm(pushed)

    warming.assert_cached(pushed)


def test_a_slow_upstream_is_waited_for_with_progress_messages(
    warming: Warming, upstream: Upstream
) -> None:
    pushed, image = push(upstream, sizes=(3_000_000,))
    warming.gate.fail(image.blobs[-1].digest, gate.slow(0.1))
    warming.stack.configure({"references": [reference(pushed)]}, "images")

    said = warming.stack.pulumi("up", "--yes", "--skip-preview", "--color=never")

    assert "1 images: " in said
    assert " of 3 MB are cached" in said
    warming.assert_cached(pushed)


def test_many_images_are_warmed_at_once(warming: Warming, upstream: Upstream) -> None:
    many = [push(upstream, sizes=TINY) for _ in range(MANY)]

    warming.warm(*(pushed for pushed, _ in many))

    digests = warming.stack.outputs()["images"]
    assert digests == {reference(pushed): pushed.digest for pushed, _ in many}
    assert {warming.fetches(blob) for _, image in many for blob in image.blobs} == {1}


def test_two_stacks_can_be_warmed_at_once(
    warming: Warming, new_stack: NewStack, upstream: Upstream
) -> None:
    pushed, image = push(upstream)
    both = [new_stack({"upstreams": upstreams(warming.gate.url, REGISTRY)}) for _ in range(2)]

    with ThreadPoolExecutor() as threads:
        for done in [threads.submit(warm, one, pushed) for one in both]:
            done.result()

    assert {warming.fetches(blob) for blob in image.blobs} == {2}
    for one in both:
        endpoint = one.outputs()["caches"][REGISTRY]["endpoint"]
        assert docker_cli.pull(endpoint, pushed) == pushed.digest


def test_a_manifest_that_does_not_match_its_digest_is_requested_again(
    warming: Warming, upstream: Upstream
) -> None:
    pushed, image = push(upstream)
    warming.gate.fail(image.manifest.digest, gate.respaced)

    warming.warm(pushed)

    url = f"{warming.endpoint}/v2/{pushed.repository}/manifests/{image.manifest.digest}"
    served = requests.get(url, timeout=60, headers={"Accept": image.manifest.media_type})
    assert served.content == image.manifest.content
    warming.assert_cached(pushed)
