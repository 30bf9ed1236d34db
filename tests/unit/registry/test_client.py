import asyncio
import socket
import time
import tracemalloc
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import TypeVar

import pytest

from components.certificate_authority import issue_authority, issue_server
from talos_registry_cache.endpoint import Endpoint
from talos_registry_cache.registry import client as client_module
from talos_registry_cache.registry.client import RateLimit, RegistryClient
from talos_registry_cache.registry.errors import (
    AnswerError,
    ContentError,
    EndpointError,
    RegistryError,
    UnreachableError,
)
from talos_registry_cache.registry.retry import Retry
from tests.unit.registry.support import images, tiny_registry
from tests.unit.registry.support.images import Blob
from tests.unit.registry.support.tiny_registry import Fault, TinyRegistry

REPOSITORY = "team/app"
LAYER = Blob(bytes(range(256)) * 4000)
SIZE = len(LAYER.content)
IMAGE = images.image(LAYER)
NOW = datetime.now(UTC)
QUICK = Retry(tries=4, first_pause_s=0.01, patience_s=1)

Result = TypeVar("Result")


@pytest.fixture(autouse=True)
def image(registry: TinyRegistry) -> None:
    registry.hold(REPOSITORY, "1", IMAGE)


def ask(registry: TinyRegistry, question: Callable[[RegistryClient], Awaitable[Result]]) -> Result:
    """Call a new client of a registry."""

    async def answer() -> Result:
        async with RegistryClient(registry.url, QUICK) as client:
            return await question(client)

    return asyncio.run(answer())


def read(registry: TinyRegistry) -> bytes:
    content = bytearray()
    ask(registry, lambda client: client.read_blob(REPOSITORY, LAYER.descriptor, content.extend))
    return bytes(content)


def failure(registry: TinyRegistry) -> RegistryError:
    with pytest.raises(RegistryError) as failed:
        read(registry)
    return failed.value


# Reading


def test_manifests_and_blobs_are_read(registry: TinyRegistry) -> None:
    by_tag = ask(registry, lambda client: client.manifest(REPOSITORY, "1"))
    by_digest = ask(registry, lambda client: client.manifest(REPOSITORY, IMAGE.digest))

    assert by_tag == by_digest
    assert by_tag.content == IMAGE.manifests[0].content
    assert by_tag.descriptor == IMAGE.manifests[0].descriptor
    assert read(registry) == LAYER.content


def test_an_endpoint_may_have_a_path(registry: TinyRegistry) -> None:
    registry.hold("mirror/v2/team/app", "1", IMAGE)
    registry.url += "/v2/mirror/"

    assert ask(registry, lambda client: client.manifest(REPOSITORY, "1")).content


NOT_A_URL = "allowed: http://HOST:PORT or https://HOST"


@pytest.mark.parametrize(
    ("endpoint", "words"),
    [
        (Endpoint(""), NOT_A_URL),
        (Endpoint("127.0.0.1:5000"), NOT_A_URL),
        (Endpoint("ftp://host"), NOT_A_URL),
        (Endpoint("http://"), NOT_A_URL),
        (Endpoint("http://h?q"), NOT_A_URL),
        (Endpoint("http://u:secret@h:port"), NOT_A_URL),
        (Endpoint("https://u:secret@h"), "contains a user name or password"),
        (Endpoint("http://h", None, "u", "secret"), "receive a password without TLS"),
        (Endpoint("https://h", ca="no certificate"), "the CA is not a certificate; allowed: PEM"),
    ],
)
def test_an_invalid_or_unsafe_endpoint_is_refused(endpoint: Endpoint, words: str) -> None:
    with pytest.raises(EndpointError, match=words) as refused:
        RegistryClient(endpoint)

    assert "secret" not in str(refused.value) + repr(replace(endpoint, url=""))


# Closed registries


@pytest.mark.parametrize("ca", [None, issue_authority("tests", NOW).certificate])
def test_no_password_is_sent_to_an_untrusted_server(ca: str | None) -> None:
    """The contract tests of a closed registry show that the right CA and password work."""
    server = issue_server(issue_authority("tests", NOW), ["127.0.0.1"], NOW)

    async def read_manifest(url: str) -> None:
        async with RegistryClient(Endpoint(url, ca, "adam", "s3cret"), QUICK) as client:
            await client.manifest(REPOSITORY, "1")

    with tiny_registry.serving(TinyRegistry(), server) as closed:
        with pytest.raises(UnreachableError, match=r"certificate verify failed|not trusted"):
            asyncio.run(read_manifest(closed.url))
        assert closed.requests == []


def test_existing_blobs_are_found_without_reading_them(registry: TinyRegistry) -> None:
    missing = Blob(b"missing").descriptor

    assert ask(registry, lambda client: client.has_blob(REPOSITORY, LAYER.descriptor))
    assert not ask(registry, lambda client: client.has_blob(REPOSITORY, missing))
    assert registry.asked(LAYER.digest) == ["HEAD"]


def test_proxies_in_the_environment_are_ignored(
    registry: TinyRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")

    assert read(registry) == LAYER.content


def test_a_blob_is_mounted_into_another_repository_if_the_source_has_it(
    registry: TinyRegistry,
) -> None:
    registry.kept.add((REPOSITORY, LAYER.digest))

    ask(registry, lambda client: client.mount("team/other", LAYER.descriptor, REPOSITORY))

    assert ("team/other", LAYER.digest) in registry.kept
    with pytest.raises(ContentError, match=f"team/none does not have {LAYER.digest}"):
        ask(registry, lambda client: client.mount(REPOSITORY, LAYER.descriptor, "team/none"))


# Wrong content


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (tiny_registry.altered, "is damaged: its digest is sha256:"),
        (tiny_registry.longer, f"has {SIZE + 1} bytes instead of {SIZE}"),
        (tiny_registry.unbounded, f"is larger than {SIZE} bytes"),
    ],
)
def test_a_wrong_blob_is_refused_without_a_retry(
    registry: TinyRegistry, fault: Fault, said: str
) -> None:
    registry.fail(LAYER.digest, fault)

    error = failure(registry)

    assert isinstance(error, ContentError)
    assert said in str(error)
    assert LAYER.digest in str(error)
    assert len(registry.asked(LAYER.digest)) == 1


@pytest.mark.parametrize("target", ["1", IMAGE.digest])
def test_a_manifest_with_another_digest_than_announced_is_refused(
    registry: TinyRegistry, target: str
) -> None:
    registry.headers = {"Docker-Content-Digest": IMAGE.digest}
    registry.fail(target, tiny_registry.altered)

    with pytest.raises(ContentError, match=f"has the digest sha256:.* instead of {IMAGE.digest}"):
        ask(registry, lambda client: client.manifest(REPOSITORY, target))


def test_a_manifest_is_read_up_to_a_limit(registry: TinyRegistry) -> None:
    endless = Blob(bytes(5 << 20), images.OCI_MANIFEST)
    registry.hold(REPOSITORY, "endless", images.Built([endless], []))

    with pytest.raises(ContentError, match="is larger than 4194304 bytes"):
        ask(registry, lambda client: client.manifest(REPOSITORY, "endless"))


def test_a_slow_manifest_times_out(registry: TinyRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "MANIFEST_TIMEOUT_S", 0.2)
    registry.fail("1", *[tiny_registry.silent(0.5)] * 9)

    with pytest.raises(UnreachableError, match="timed out after"):
        ask(registry, lambda client: client.manifest(REPOSITORY, "1"))


@pytest.mark.parametrize(
    ("total", "left", "limit"),
    [
        ("100;w=21600", "76;w=21600", RateLimit(remaining=76, limit=100, window_s=21600)),
        *((number, number, None) for number in ("9" * 5000, "1" * 19, "none", "-1")),
    ],
)
def test_a_valid_pull_limit_is_reported(
    registry: TinyRegistry, total: str, left: str, limit: RateLimit | None
) -> None:
    registry.headers = {"ratelimit-limit": total, "ratelimit-remaining": left}

    async def answered(client: RegistryClient) -> RateLimit | None:
        await client.manifest(REPOSITORY, "1")
        return client.rate_limit

    assert ask(registry, answered) == limit


# Redirects


def test_an_allowed_redirect_is_followed(registry: TinyRegistry) -> None:
    elsewhere = registry.url.replace("127.0.0.1", "localhost")
    registry.fail(LAYER.digest, redirect(f"{elsewhere}/v2/{REPOSITORY}/blobs/{LAYER.digest}"))

    assert read(registry) == LAYER.content


@pytest.mark.parametrize("host", ["169.254.169.254", "[fe80::1]", "100.100.100.200"])
def test_a_redirect_to_a_link_local_or_metadata_address_is_not_followed(
    registry: TinyRegistry, host: str
) -> None:
    registry.fail(LAYER.digest, redirect(f"http://{host}/latest/meta-data"))

    error = failure(registry)

    assert isinstance(error, ContentError)
    assert "link-local and metadata addresses are not allowed" in str(error)


def redirect(url: str) -> Fault:
    return lambda handler, _: handler.send(307, b"", {"Location": url})


# Retries


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_temporary_failure_is_retried_and_the_last_one_reported(
    registry: TinyRegistry, status: int
) -> None:
    fault = tiny_registry.status(status, "UNAVAILABLE", "backend\nis  away")
    registry.fail(LAYER.digest, *[fault] * 3)
    assert read(registry) == LAYER.content
    assert registry.asked(LAYER.digest) == ["GET"] * 4

    registry.fail(LAYER.digest, *[fault] * 9)
    url = f"{registry.url}/v2/{REPOSITORY}/blobs/{LAYER.digest}"
    assert str(failure(registry)) == f"GET {url}: {status} UNAVAILABLE: backend is away"
    assert registry.asked(LAYER.digest) == ["GET"] * 8


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 416])
def test_a_refusal_is_not_retried(registry: TinyRegistry, status: int) -> None:
    registry.fail(LAYER.digest, tiny_registry.status(status, "DENIED", "not for you"))

    error = failure(registry)

    assert isinstance(error, AnswerError)
    assert error.status == status
    assert str(error).endswith(f"{status} DENIED: not for you")
    assert registry.asked(LAYER.digest) == ["GET"]


def test_the_retry_waits_as_long_as_the_registry_asks(registry: TinyRegistry) -> None:
    registry.fail(LAYER.digest, tiny_registry.status(429, Retry_After="1"))
    started = time.monotonic()

    assert read(registry) == LAYER.content
    assert time.monotonic() - started >= 1


def test_a_retry_after_beyond_the_patience_is_an_error(registry: TinyRegistry) -> None:
    fault = tiny_registry.status(429, "TOOMANYREQUESTS", "slow down", Retry_After="5")
    registry.fail(LAYER.digest, fault)

    assert str(failure(registry)).endswith("429 TOOMANYREQUESTS: slow down (retry after 5 s)")
    assert registry.asked(LAYER.digest) == ["GET"]


def detailed(detail: str) -> bytes:
    return f'{{"errors": [{{"code": "UNKNOWN", "message": "no", "detail": {detail}}}]}}'.encode()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"<h1>It  is\nnot here</h1>", "404 <h1>It is not here</h1>"),
        (b"", "404 Not Found"),
        (b'{"errors": "no list"}', '404 {"errors": "no list"}'),
        (b"[" * 60_000, f"404 {'[' * 500}..."),
        (b"x" * 200_000, "xxx..."),
        (detailed('"dial tcp: refused"'), "404 UNKNOWN: no (dial tcp: refused)"),
        (
            detailed(r'"Get \"https://cdn.test/a?token=hunter2\": EOF"'),
            'UNKNOWN: no (Get "https://cdn.test/a?[hidden] EOF)',
        ),
        (detailed('{"Tag": "1"}'), "404 UNKNOWN: no"),
        (detailed("null"), "404 UNKNOWN: no"),
    ],
)
def test_any_error_is_one_short_line_without_the_query_of_urls(
    registry: TinyRegistry, body: bytes, said: str
) -> None:
    registry.fail(LAYER.digest, tiny_registry.text(404, body))

    error = str(failure(registry))

    assert error.endswith(said)
    assert len(error) < 1000


def test_a_broken_transfer_is_resumed_a_little_before_its_end(registry: TinyRegistry) -> None:
    registry.fail(LAYER.digest, tiny_registry.cut(100_000), tiny_registry.cut(200_000))
    first = 100_000 - client_module.UNCERTAIN_TAIL
    second = first + 200_000 - client_module.UNCERTAIN_TAIL

    assert read(registry) == LAYER.content
    assert registry.asked(LAYER.digest) == ["GET", f"GET bytes={first}-", f"GET bytes={second}-"]


@pytest.mark.parametrize("after", [0, 10, 100_000])
def test_an_error_message_after_partial_content_is_reported_and_not_content(
    registry: TinyRegistry, after: int
) -> None:
    fault = tiny_registry.cut_with_words(after)
    registry.fail(LAYER.digest, *[fault] * 2)
    assert read(registry) == LAYER.content

    registry.fail(LAYER.digest, *[fault] * QUICK.tries)
    error = failure(registry)
    assert isinstance(error, UnreachableError)
    assert str(error).endswith(": UNKNOWN: no space left on device")


def test_a_server_without_range_support_sends_the_blob_again(registry: TinyRegistry) -> None:
    registry.fail(LAYER.digest, tiny_registry.cut(100_000), tiny_registry.whole)

    assert read(registry) == LAYER.content


def test_a_silent_registry_is_retried(
    registry: TinyRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "SILENCE_TIMEOUT_S", 0.1)
    registry.fail(LAYER.digest, tiny_registry.silent(0.3))

    assert read(registry) == LAYER.content


def test_an_unreachable_endpoint_is_reported_without_the_password() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"https://127.0.0.1:{unused.getsockname()[1]}"
        endpoint = Endpoint(url, None, "user", "secret")

        async def ask_unreachable() -> None:
            async with RegistryClient(endpoint, QUICK) as client:
                await client.manifest(REPOSITORY, "1")

        with pytest.raises(UnreachableError, match="ConnectError") as failed:
            asyncio.run(ask_unreachable())

    assert "secret" not in str(failed.value)


# Caches


def pull(cache: TinyRegistry) -> bool:
    return ask(cache, lambda client: client.pull_blob(REPOSITORY, LAYER.descriptor, lambda _: None))


def test_a_cache_fetches_a_blob_once(cache: TinyRegistry) -> None:
    cache.hold(REPOSITORY, "1", IMAGE)

    assert [pull(cache), pull(cache), pull(cache)] == [False, True, True]
    assert cache.fetched == {LAYER.digest: 1}


def test_a_cached_blob_of_the_wrong_size_is_refused(cache: TinyRegistry) -> None:
    cache.blobs[REPOSITORY, LAYER.digest] = Blob(LAYER.content[:-1])
    cache.kept.add((REPOSITORY, LAYER.digest))

    with pytest.raises(ContentError, match=f"the range 'bytes 0-0/{SIZE - 1}'"):
        pull(cache)


def test_a_front_that_remembers_a_blob_does_not_prove_that_it_is_stored(
    cache: TinyRegistry,
) -> None:
    cache.hold(REPOSITORY, "1", IMAGE)
    part = {"Content-Range": f"bytes 0-0/{SIZE}", "X-Cache": "HIT"}
    cache.fail(LAYER.digest, lambda handler, _: handler.send(206, bytes(1), part))

    assert pull(cache) is False


@pytest.mark.parametrize("sent", [2, 1 << 20])
def test_more_than_the_requested_byte_is_refused(cache: TinyRegistry, sent: int) -> None:
    cache.hold(REPOSITORY, "1", IMAGE)
    part = {"Content-Range": f"bytes 0-0/{SIZE}"}
    cache.fail(LAYER.digest, lambda handler, _: handler.send(206, bytes(sent), part))

    with pytest.raises(ContentError, match="more than the requested byte"):
        pull(cache)


# Memory


def test_a_large_blob_is_not_held_in_memory(registry: TinyRegistry) -> None:
    large = Blob(bytes(300 << 20))
    registry.hold(REPOSITORY, "large", images.image(large))
    descriptor = large.descriptor

    tracemalloc.start()
    try:
        ask(registry, lambda client: client.read_blob(REPOSITORY, descriptor, lambda _: None))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 20 << 20
