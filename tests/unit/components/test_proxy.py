"""The HTTP proxy through which caches reach their upstreams."""

from collections.abc import Mapping
from typing import Any

import pytest

from tests.unit.components.certificates import authority
from tests.unit.components.declared_caches import declare, environment, files, on_swarm
from tests.unit.components.parsed_settings import assert_refused, mistakes, of
from tests.unit.components.stack_graph import SERVICE

UPSTREAMS = {"upstreams": {"docker.io": None, "quay.io": None}}
PROXY = "http://proxy.test:3128"
VARIABLES = ("http_proxy", "https_proxy", "no_proxy")
UNUSED = "The caches do not use the proxy in "


@pytest.fixture(autouse=True)
def _no_proxy_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def variables(settings: Mapping[str, Any] | None) -> dict[str, str]:
    """The environment variables for a proxy that all caches have."""
    found = environment(declare({**UPSTREAMS, "proxy": settings}))
    return {name: value for name, value in found.items() if name.endswith("_PROXY")}


def test_a_given_proxy_is_in_the_environment_of_every_registry() -> None:
    proxy = {"http": f"{PROXY}/", "https": PROXY, "noProxy": ["corp.test", "10.0.0.0/8"]}
    wanted = {"HTTP_PROXY": PROXY, "HTTPS_PROXY": PROXY, "NO_PROXY": "corp.test,10.0.0.0/8"}

    assert variables(proxy) == wanted
    service = on_swarm(proxy=proxy).one(SERVICE, "quay.io-registry").inputs
    assert service["taskSpec"]["containerSpec"]["env"].items() >= wanted.items()


def test_the_proxy_of_the_environment_is_used_only_if_the_stack_file_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("https_proxy", "proxy.test:3128")
    monkeypatch.setenv("HTTPS_PROXY", "http://other.test:1")
    monkeypatch.setenv("NO_PROXY", "localhost, .corp.test,[::1]")

    assert variables({"kind": "environment"}) == {
        "HTTPS_PROXY": PROXY,
        "NO_PROXY": "localhost,.corp.test,[::1]",
    }
    assert variables(None) == variables({}) == {}


@pytest.fixture
def warnings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    found: list[str] = []
    monkeypatch.setattr("pulumi.log.warn", lambda text, *_: found.append(text))
    return found


@pytest.mark.parametrize(
    ("caches", "is_warned"),
    [
        ({}, True),
        ({"proxy": {}}, False),
        ({"proxy": {"kind": "environment"}}, False),
        ({"offline": True}, False),
    ],
)
def test_up_warns_of_a_proxy_in_the_environment_that_the_stack_file_does_not_mention(
    monkeypatch: pytest.MonkeyPatch,
    warnings: list[str],
    caches: Mapping[str, Any],
    *,
    is_warned: bool,
) -> None:
    declare({**UPSTREAMS, "proxy": None})
    assert warnings == []

    monkeypatch.setenv("HTTPS_PROXY", PROXY)
    declare({**UPSTREAMS, **caches})

    assert [text.startswith(f"{UNUSED}HTTPS_PROXY") for text in warnings] == [True] * is_warned


def test_every_cache_trusts_the_ca_of_a_proxy_that_inspects_tls() -> None:
    inspecting, own = authority("inspecting").certificate, authority("own").certificate
    caches = {"upstreams": {"docker.io": {"ca": own}, "quay.io": None}, "proxy": {"ca": inspecting}}

    graph = declare(caches)

    assert files(graph)["authorities.crt"] == inspecting
    assert files(graph, "docker.io-credentials")["authorities.crt"] == f"{inspecting}\n{own}"


@pytest.mark.parametrize(
    ("key", "value", "kind"),
    [
        ("https", "http://me:hunter2@proxy.test:3128", "found 'http://[hidden]@proxy.test:3128';"),
        ("https", "me:hunter2@proxy.test", "without a password, which docker inspect would show"),
        ("https", "http://127.0.0.1:3128", "not loopback"),
        ("http", "socks5://proxy.test", "allowed: http:// or https:// with a host"),
        ("http", "http://proxy.test/path", "without a path"),
        ("noProxy", ["a,b"], "a host, a domain, an address or a network"),
        ("kind", "none", "allowed: given, environment"),
    ],
)
def test_an_unusable_proxy_is_refused(key: str, value: Any, kind: str) -> None:
    written = of({"proxy": {key: value}})

    ((path, text),) = mistakes(written)

    assert path.startswith(f"caches.proxy.{key}")
    assert kind in text
    assert "hunter2" not in text


def test_an_unusable_proxy_in_the_environment_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://me:hunter2@proxy.test")

    assert_refused(
        of({"proxy": {"kind": "environment"}}),
        "caches.proxy.https",
        "found 'http://[hidden]@proxy.test' in the environment; allowed: http://",
    )
