"""The referrers of manifests, listed by upstreams on loopback."""

import asyncio
import json
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from talos_registry_cache.registry import manifests, referrers
from talos_registry_cache.registry.errors import ContentError
from talos_registry_cache.registry.manifests import Descriptor, Index
from talos_registry_cache.registry.referrers import MEDIA_TYPE, asking
from talos_registry_cache.registry.upstream import Remote
from tests.unit.registry.support import images
from tests.unit.registry.support.images import Blob
from tests.unit.registry.support.tiny_registry import Handler, TinyRegistry, status

REPOSITORY = "team/app"
IMAGE = images.image(Blob(b"a layer")).digest
SIGNATURES = tuple(
    Descriptor(
        images.OCI_MANIFEST,
        Blob(name).digest,
        7,
        annotations={"by": "a key"},
        artifact_type="application/vnd.dev.sigstore.bundle.v0.3+json",
    )
    for name in (b"one", b"two")
)


def in_order(entries: Sequence[Descriptor]) -> list[Descriptor]:
    return sorted(entries, key=lambda one: one.digest)


def listing(*entries: Descriptor) -> Blob:
    return Blob(referrers.index(entries), MEDIA_TYPE)


def ask(url: str, *repositories: str, said: list[str] | None = None) -> list[Sequence[Descriptor]]:
    say = (said if said is not None else []).append

    async def run() -> list[Sequence[Descriptor]]:
        async with asking({"docker.io": Remote(url)}, say) as asked:
            return [
                await asked.of("docker.io", repository, IMAGE)
                for repository in repositories or [REPOSITORY]
            ]

    return asyncio.run(run())


def problem(url: str) -> str:
    """What is said of an upstream whose list is not used."""
    said: list[str] = []
    assert ask(url, said=said) == [()]
    [problem] = said
    return problem


def test_the_referrers_that_an_upstream_lists_are_found_with_type_and_annotations(
    registry: TinyRegistry,
) -> None:
    registry.referrers[REPOSITORY, IMAGE] = listing(*SIGNATURES)

    [found] = ask(registry.url)

    assert in_order(found) == in_order(SIGNATURES)


def test_all_pages_of_a_list_are_read(registry: TinyRegistry) -> None:
    first, second = SIGNATURES
    registry.referrers[REPOSITORY, IMAGE] = listing(second)
    following = f"/v2/{REPOSITORY}/referrers/{IMAGE}"

    def page(handler: Handler, _: Blob) -> None:
        link = {"Link": f'<{following}>; rel="next"', "Content-Type": MEDIA_TYPE}
        handler.send(200, listing(first).content, link)

    registry.fail(IMAGE, page)

    assert ask(registry.url) == [[first, second]]


@pytest.mark.parametrize("elsewhere", ["http://192.0.2.1/v2/", "//192.0.2.1/v2/"])
def test_a_list_that_continues_at_another_host_is_not_used(
    registry: TinyRegistry, elsewhere: str
) -> None:
    def page(handler: Handler, _: Blob) -> None:
        handler.send(200, listing().content, {"Link": f'<{elsewhere}>; rel="next"'})

    registry.fail(IMAGE, page)

    assert "continues its list of referrers at 192.0.2.1" in problem(registry.url)


def test_a_list_without_end_is_not_used(registry: TinyRegistry) -> None:
    def page(handler: Handler, _: Blob) -> None:
        handler.send(200, listing().content, {"Link": f'<{handler.path}>; rel="next"'})

    registry.fail(IMAGE, *[page] * (referrers.PAGES_LIMIT + 1))

    assert f"more than {referrers.PAGES_LIMIT} pages" in problem(registry.url)


def test_an_upstream_without_the_api_is_asked_once_for_each_repository(
    registry: TinyRegistry,
) -> None:
    said: list[str] = []

    assert ask(registry.url, REPOSITORY, REPOSITORY, "team/other", said=said) == [(), (), ()]
    assert len(registry.requests) == 2
    assert said == []


def test_an_upstream_that_fails_has_no_referrers_and_is_asked_again(
    registry: TinyRegistry,
) -> None:
    registry.referrers[REPOSITORY, IMAGE] = listing(*SIGNATURES)
    registry.fail(IMAGE, status(429), status(503))
    said: list[str] = []

    *refused, found = ask(registry.url, *[REPOSITORY] * 3, said=said)

    assert (refused, len(found)) == ([(), ()], 2)
    [once] = said
    assert once.startswith("docker.io: cannot list the referrers of images: 429 http://127.0.0.1")


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://[no"])
def test_an_upstream_that_does_not_answer_has_no_referrers(url: str) -> None:
    said: list[str] = []

    assert ask(url, REPOSITORY, REPOSITORY, said=said) == [(), ()]
    assert len(said) == 1


@pytest.mark.parametrize("content", [b"no JSON", b"[]", b'{"schemaVersion": 2, "manifests": [1]}'])
def test_something_else_than_a_list_is_not_used(registry: TinyRegistry, content: bytes) -> None:
    registry.referrers[REPOSITORY, IMAGE] = Blob(content, MEDIA_TYPE)

    assert "not a valid" in problem(registry.url)


@given(st.permutations([*SIGNATURES, Descriptor(images.OCI_MANIFEST, IMAGE, 1)]))
def test_an_index_is_the_same_for_referrers_in_any_order(entries: Sequence[Descriptor]) -> None:
    made = referrers.index(entries)

    found = manifests.parse(made, MEDIA_TYPE)
    assert isinstance(found, Index)
    assert list(found.manifests) == in_order(entries)
    assert made == referrers.index(found.manifests)
    assert json.loads(made)["mediaType"] == MEDIA_TYPE


def test_an_index_of_too_many_referrers_is_refused() -> None:
    many = [Descriptor(images.OCI_MANIFEST, Blob(b"%d" % i).digest, 1) for i in range(2000)]

    with pytest.raises(ContentError, match="2000 referrers take"):
        referrers.index(many)
