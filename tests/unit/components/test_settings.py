import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pulumi
import pydantic
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from components import settings
from components.settings import Caches, SettingsError, StackSettings
from components.settings.caches import DEFAULT_IMAGE, Upstream
from components.settings.mistakes import in_yaml
from talos_registry_cache.registry.catalogue import CATALOGUE
from tests.unit.components import stack_graph
from tests.unit.components.certificates import AUTHORITY, OTHER
from tests.unit.components.parsed_settings import (
    ONE_UPSTREAM,
    assert_refused,
    caches_of,
    mistakes,
    of,
    parsed_caches,
    volume_storage_of,
)

ROOT = Path(__file__).resolve().parents[3]
STACK_FILES = sorted(ROOT.glob("Pulumi.*.yaml"))

PEM = AUTHORITY.certificate
S3_KEYS = {"accessKey": "a", "secretKey": "s"}
OVER_S3 = {"storage": {"kind": "s3", "bucket": "caches"}}
GIVEN_TLS = {"tls": {"kind": "given", "certificate": PEM}}
SWARM = {
    **OVER_S3,
    "placement": {"kind": "swarm"},
    "mirrorHost": "caches.test",
    "publishOn": ["0.0.0.0"],
}


@pytest.fixture(autouse=True)
def _is_not_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)


def upstream(**written: Any) -> dict[str, Any]:
    """An upstream that is not in the catalogue, right but for what is written."""
    known = {"port": 5000, "remoteUrl": "https://registry.test"}
    return {"upstreams": {"registry.test": known | written}}


# Defaults


def test_a_registry_of_the_catalogue_needs_only_its_name() -> None:
    docker_hub = parsed_caches("upstreams: {docker.io: }").upstreams["docker.io"]

    assert docker_hub == Upstream(port=5000, remote_url="https://registry-1.docker.io")


def test_a_stack_file_overrides_the_catalogue() -> None:
    written = {"port": 6000, "remoteUrl": "http://mirror.test:8080"}

    docker_hub = parsed_caches({"upstreams": {"docker.io": written}}).upstreams["docker.io"]

    assert (docker_hub.port, docker_hub.remote_url) == (6000, "http://mirror.test:8080")


def test_defaults_keep_everything_for_ever() -> None:
    parsed = settings.parse("dev", {"caches": ONE_UPSTREAM})
    caches = caches_of(parsed)

    assert caches.image == DEFAULT_IMAGE
    assert volume_storage_of(parsed).on_destroy == "keep"
    assert caches.ttl == "never"
    assert caches.mirror_host == "auto"
    assert caches.publish_on is None
    assert (caches.logs.level, caches.logs.max_size, caches.logs.max_files) == ("info", "10m", 3)
    assert caches.memory_limit == "512m"
    assert (parsed.stack, parsed.clusters, parsed.images, parsed.mirrors_from) == (
        "dev", {}, None, None,
    )  # fmt: skip


def test_the_kind_of_settings_has_a_default() -> None:
    caches = parsed_caches("{storage: {}, placement: {}, tls: {}}")

    assert (caches.storage.kind, caches.placement.kind) == ("volume", "engine")
    assert caches.tls
    assert caches.tls.kind == "own"


def test_settings_cannot_be_changed() -> None:
    parsed = settings.parse("dev", {"caches": ONE_UPSTREAM})
    caches = caches_of(parsed)

    for model in (parsed, caches, caches.storage, caches.upstreams["docker.io"]):
        name = next(iter(type(model).model_fields))
        with pytest.raises(pydantic.ValidationError, match="frozen"):
            setattr(model, name, None)


# In Python


def test_settings_are_made_in_python_by_field_name() -> None:
    made = Caches(
        upstreams={"registry.test": Upstream(port=5000, remote_url="https://registry.test/")},
        name_prefix="mine",
    )

    assert made == parsed_caches({**upstream(), "namePrefix": "mine"})


def test_python_is_told_of_all_mistakes_too() -> None:
    with pytest.raises(pydantic.ValidationError) as refused:
        Caches(upstreams={"docker.io": {"port": 1}}, ttl="soon", zzz=1)  # type: ignore[dict-item, call-arg]

    paths = {error["loc"] for error in refused.value.errors()}
    assert paths == {("upstreams", "docker.io", "port"), ("ttl",), ("zzz",)}


def test_a_stack_file_takes_no_field_names() -> None:
    assert_refused(of("name_prefix: a"), "caches.name_prefix", "(did you mean namePrefix?)")


# Values that are right


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("ttl", value) for value in ("never", "720h", "1h30m", "1.5h", "500ms", "10s")),
        *(("mirrorHost", value) for value in ("auto", "10.5.0.1", "host.docker.internal")),
        *(("memoryLimit", value) for value in ("64m", "2g", "65536k")),
        *(("image", value) for value in ("registry:3.1.2", f"a.b:5000/c@sha256:{'0' * 64}")),
        *(("namePrefix", value) for value in ("registry", "my_caches-1.2")),
        *(("publishOn", value) for value in (["127.0.0.1"], ["127.0.0.1", "10.5.0.1"])),
    ],
)
def test_a_right_value_is_kept_as_it_is_written(key: str, value: Any) -> None:
    dumped = parsed_caches({key: value}).model_dump(mode="json", by_alias=True)

    assert dumped[key] == value


@pytest.mark.parametrize(
    "host", ["registry.test", "registry.test:5000", "localhost", "localhost:80", "10.0.0.1:5000"]
)
def test_a_registry_host_is_the_one_of_image_references(host: str) -> None:
    written = {"port": 5000, "remoteUrl": "https://registry.test"}

    assert host in parsed_caches({"upstreams": {host: written}}).upstreams


@pytest.mark.parametrize(
    ("written", "url"),
    [
        ("https://registry.test", "https://registry.test"),
        ("https://registry.test/", "https://registry.test"),
        ("http://registry.test:5000", "http://registry.test:5000"),
        ("http://10.0.0.1:5000/", "http://10.0.0.1:5000"),
    ],
)
def test_a_remote_url_has_a_scheme_and_a_host(written: str, url: str) -> None:
    caches = parsed_caches(upstream(remoteUrl=written))

    assert caches.upstreams["registry.test"].remote_url == url


@pytest.mark.parametrize(
    ("user", "port", "is_allowed"),
    [
        (1000, 1024, True),
        (1000, 65535, True),
        (1000, 1023, False),
        (1000, 1, False),
        (0, 1, True),
        (0, 1023, True),
        (0, 0, False),
        (0, 65536, False),
    ],
)
def test_ports_below_1024_are_for_root(
    monkeypatch: pytest.MonkeyPatch, user: int, port: int, *, is_allowed: bool
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: user)

    assert bool(mistakes(of(upstream(port=port)))) is not is_allowed


@pytest.mark.parametrize(
    ("changed", "secrets"),
    [
        (upstream(username="me"), {"passwords": {"registry.test": "p"}}),
        (upstream(username=None), {}),
        ({"storage": {"onDestroy": "delete"}}, {}),
        (OVER_S3, {"s3Keys": S3_KEYS}),
        (GIVEN_TLS, {"tlsKey": AUTHORITY.key}),
        ({"tls": {}}, {"readers": {"adam": "s3cret", "eve@home": "x" * 72}}),
        (
            {"via": {"mirrors": {"docker.io": "https://a.test"}, "username": "me"}},
            {"passwords": {"via": "p"}},
        ),
        (
            {
                "upstreams": {"docker.io": {"username": "me"}, "quay.io": None},
                "via": {"mirrors": {"quay.io": "https://a.test"}},
            },
            {"passwords": {"docker.io": "p"}},
        ),
        (SWARM, {"s3Keys": S3_KEYS}),
        # One node may have volumes, and clean them up.
        (
            {
                **SWARM,
                "placement": {"kind": "swarm", "replicas": 1},
                "storage": {},
                "ttl": "720h",
            },
            {},
        ),
    ],
)
def test_settings_that_fit_together_are_right(
    changed: dict[str, Any], secrets: dict[str, Any]
) -> None:
    assert mistakes({**of(changed), **secrets}) == []


# Values that are wrong


HOST = "a registry host such as quay.io"
NAME = "letters, digits, dots, dashes and underscores"
MIRROR_HOST = "auto, an IPv4 address, or a host name"
DURATION = "never, or a duration such as 720h"
SIZE = "a number with k, m or g, such as 10m"
IMAGE = "an image reference such as registry:3.1.2"
PEM_ONLY = "-----BEGIN CERTIFICATE-----"


@pytest.mark.parametrize(
    ("below", "path", "kind"),
    [
        ("upstreams: {}", "upstreams", "found none; allowed: at least one upstream"),
        ("upstreams: ", "upstreams", "found none; allowed: at least one upstream"),
        *(
            (
                {"upstreams": {host: {"port": 5000, "remoteUrl": "https://registry.test"}}},
                in_yaml(("upstreams", host)),
                f"found {host!r}; allowed: {HOST}",
            )
            for host in ("", "library", "Quay.io", "https://quay.io", "quay.io/a", "a b.c")
        ),
        ("upstreams: {docker.io: {port: 5000, zzz: 1}}", 'upstreams["docker.io"].zzz', "key; all"),
        *((f"ttl: '{ttl}'", "ttl", DURATION) for ttl in ("", "5 days", "7d", "-1h", "h", "٣h")),
        ("ttl: 0s", "ttl", "from 1ms to 876000h"),
        ("ttl: 876001h", "ttl", "from 1ms to 876000h"),
        *(
            (f"mirrorHost: '{host}'", "mirrorHost", MIRROR_HOST)
            for host in (
                "",
                "10.5.0.256",
                "10.5.0.1:5000",
                "http://10.5.0.1",
                "fd00::1",
                "my host",
                "0.0.0.0",
                "224.0.0.1",
                "255.255.255.255",
            )
        ),
        *((f"memoryLimit: '{size}'", "memoryLimit", SIZE) for size in ("512", "0m", "1٢m")),
        ("memoryLimit: 15m", "memoryLimit", "from 16m to 1024g"),
        ("memoryLimit: 1025g", "memoryLimit", "from 16m to 1024g"),
        *((f"image: '{image}'", "image", IMAGE) for image in ("", "registry 3", "a@sha256:0")),
        ("image: registry", "image", "with a fixed tag or a digest"),
        ("image: a.b:5000/registry:latest", "image", "with a fixed tag or a digest"),
        *((f"namePrefix: '{name}'", "namePrefix", NAME) for name in ("", "-registry", "a/b")),
        ("publishOn: []", "publishOn", "found none; allowed: addresses"),
        ("publishOn: 127.0.0.1", "publishOn", "a list"),
        *(
            ({"publishOn": ["127.0.0.1", address]}, "publishOn[1]", "an IPv4 address")
            for address in ("localhost", "fd00::1", "10.5.0.1/16", "", 1, True, None)
        ),
        ("publishOn: [224.0.0.1]", "publishOn[0]", "unicast"),
        ("publishOn: [10.0.0.1, 10.0.0.1]", "publishOn[1]", "each address once"),
        ("publishOn: [10.0.0.1, 0.0.0.0]", "publishOn[1]", "0.0.0.0 alone"),
        ("logs: {level: loud}", "logs.level", "'error', 'warn', 'info' or 'debug'"),
        ("logs: {maxSize: big}", "logs.maxSize", SIZE),
        ("logs: {maxSize: 1025g}", "logs.maxSize", "from 1k to 1024g"),
        ("logs: {maxFiles: 0}", "logs.maxFiles", "greater than or equal to 1"),
        ("logs: {maxFiles: 101}", "logs.maxFiles", "less than or equal to 100"),
        ("storage: {onDestroy: maybe}", "storage.onDestroy", "'keep' or 'delete'"),
        ("storage: {kind: nfs}", "storage.kind", "found 'nfs'; allowed: volume, s3"),
        ("storage: {kind: }", "storage.kind", "found 'None'; allowed: volume, s3"),
        ("storage: {kind: [s3]}", "storage.kind", "volume, s3"),
        ("placement: {kind: kubernetes}", "placement.kind", "engine, swarm"),
        ("tls: {kind: acme}", "tls.kind", "own, given"),
        ("tls: {names: [a b]}", "tls.names[0]", "a host name or an IPv4 address"),
        ("takeOverFrom: [' a']", "takeOverFrom[0]", "printable characters"),
        ("offline: 'yes'", "offline", "true or false"),
        ("via: {}", "via.mirrors", "found none"),
        ("via: {mirrors: {}}", "via.mirrors", "found none"),
        *(
            ({"via": {"mirrors": {"docker.io": "https://a.test"}, "ca": ca}}, "via.ca", kind)
            for ca, kind in (
                ("MII" + "C" * 500, f"found 'MII{'C' * 37}'; allowed: PEM certificates"),
                (f"{PEM_ONLY}\nMII\n", "found unreadable certificates"),
                (PEM + AUTHORITY.key, "found a private key"),
            )
        ),
    ],
)
def test_a_wrong_value_is_refused_at_its_place(below: Any, path: str, kind: str) -> None:
    assert_refused(of(below), f"caches.{path}", kind)


@pytest.mark.parametrize(
    ("written", "path", "kind"),
    [
        *(({"port": port}, "port", f"found {port!r}") for port in ("5000", 5e3, True, None, [5])),
        ({"port": 80}, "port", "found 80; allowed: 1024 to 65535; lower ports need root"),
        ({"port": 10**30}, "port", "1024 to 65535"),
        ({"image": "a b"}, "image", IMAGE),
        ({"username": ""}, "username", "non-empty text"),
        ({"username": "a:b"}, "username", "no colon"),
        ({"remoteURL": "https://a.test"}, "remoteURL", "(did you mean remoteUrl?); allowed: port"),
        *(
            ({"remoteUrl": url}, "remoteUrl", f"found {url!r}; allowed: http:// or https://")
            for url in (
                "", "registry.test", "ftp://registry.test", "https://", "https:///v2",
                "https://registry test", "https://registry.test:port", "https://registry.test?a=b",
                "https://registry.test#a", "https://registry.test\n", "https://registry.test:65536",
            )
        ),
        *(
            ({"remoteUrl": url}, "remoteUrl", "without a path")
            for url in ("https://registry.test/v2", "https://registry.test//")
        ),
        *(
            ({"remoteUrl": url}, "remoteUrl", "not loopback")
            for url in ("http://localhost:5000", "https://127.0.0.2")
        ),
        ({"remoteUrl": "https://224.0.0.1"}, "remoteUrl", "unicast"),
    ],
)  # fmt: skip
def test_a_wrong_value_of_an_upstream_is_refused_at_its_place(
    written: dict[str, Any], path: str, kind: str
) -> None:
    secrets = {"passwords": {"registry.test": "p"}} if "username" in written else {}

    written_file = {**of(upstream(**written)), **secrets}

    assert_refused(written_file, f'caches.upstreams["registry.test"].{path}', kind)


def test_a_registry_outside_the_catalogue_needs_its_url_and_port() -> None:
    assert mistakes(of("upstreams: {registry.test: {}}")) == [
        (
            'caches.upstreams["registry.test"].port',
            "found none; allowed: a port, since this registry has no default port",
        ),
        (
            'caches.upstreams["registry.test"].remoteUrl',
            (
                "found none; allowed: a URL; the registries with a default URL are "
                + ", ".join(CATALOGUE)
            ),
        ),
    ]


@pytest.mark.parametrize("bucket", ["", "ab", "Caches", "a/b", "-caches", "caches.", "a" * 64])
def test_a_bucket_has_a_name_that_stores_take(bucket: str) -> None:
    written = {**of({"storage": {"kind": "s3", "bucket": bucket}}), "s3Keys": S3_KEYS}

    assert_refused(written, "caches.storage.bucket", f"found {bucket!r}; allowed: the name of a")


def test_an_object_store_needs_a_bucket() -> None:
    written = {**of("storage: {kind: s3}"), "s3Keys": S3_KEYS}

    assert_refused(written, "caches.storage.bucket", "found none; allowed: name of an existing b")


@pytest.mark.parametrize(
    ("key", "of_kind", "known"),
    [
        ("storage", "{kind: volume", "kind, volumePrefix, onDestroy"),
        ("storage", "{onDestroy: keep", "kind, volumePrefix, onDestroy"),
        ("storage", "{kind: s3", "kind, bucket, endpoint, region, pathStyle, prefix, ca"),
        ("placement", "{kind: engine", "kind"),
        ("placement", "{kind: swarm", "kind, nodeLabels, replicas, publish"),
        ("tls", "{names: []", "kind, names"),
        ("tls", "{kind: given", "kind, certificate, ca"),
        ("logs", "{level: info", "level, maxSize, maxFiles"),
    ],
)
def test_an_unknown_key_is_refused_with_the_keys_of_its_kind(
    key: str, of_kind: str, known: str
) -> None:
    found = mistakes(of(f"{key}: {of_kind}, zzz: 1}}"))

    assert (f"caches.{key}.zzz", f"found an unknown key; allowed: {known}") in found


@pytest.mark.parametrize("value", [["a"], "text", 5, 1.5, True])
@pytest.mark.parametrize(
    ("path", "within"),
    [
        ("caches", lambda value: {"caches": value}),
        ("caches.upstreams", lambda value: of({"upstreams": value})),
        ('caches.upstreams["docker.io"]', lambda value: of({"upstreams": {"docker.io": value}})),
        ("caches.storage", lambda value: of({"storage": value})),
        ("caches.logs", lambda value: of({"logs": value})),
    ],
)
def test_a_mapping_is_wanted_where_one_belongs(value: Any, path: str, within: Any) -> None:
    assert_refused(within(value), path, f"found {value!r}; allowed: a mapping")


# Rules across settings


@pytest.mark.parametrize(
    ("below", "path", "kind"),
    [
        (
            "upstreams: {docker.io: {port: 5005}, quay.io: {port: 5005}}",
            'upstreams["quay.io"].port',
            "found 5005, which docker.io uses",
        ),
        (
            "upstreams: {docker.io: , quay.io: {port: 5000}}",
            'upstreams["quay.io"].port',
            "found 5000, which docker.io uses",
        ),
        (
            "via: {mirrors: {docker.io: https://a.test, quay.io: https://b.test}}",
            'via.mirrors["quay.io"]',
            "caches.upstreams has no quay.io; allowed: docker.io",
        ),
        (
            "{mirrorHost: a.test, via: {mirrors: {docker.io: 'https://a.test:5000'}}}",
            'via.mirrors["docker.io"]',
            "this stack's own cache of docker.io",
        ),
        (
            "{publishOn: [10.0.0.9], upstreams: {docker.io: {remoteUrl: 'http://10.0.0.9:5000'}}}",
            'upstreams["docker.io"].remoteUrl',
            "this stack's own cache of docker.io",
        ),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(below: Any, path: str, kind: str) -> None:
    assert_refused(of(below), f"caches.{path}", kind)


@pytest.mark.parametrize("key", ["namePrefix", "volumePrefix"])
@pytest.mark.parametrize(("length", "is_refused"), [(21, False), (22, True)])
def test_names_are_no_longer_than_an_engine_takes(
    key: str, length: int, *, is_refused: bool
) -> None:
    host = "a." * 110 + "b"
    prefix: dict[str, Any] = {key: "p" * length}
    written = {
        "upstreams": {host: {"port": 5000, "remoteUrl": "https://a.test"}},
        **(prefix if key == "namePrefix" else {"storage": prefix}),
    }

    found = mistakes(of(written))

    assert [path for path, _ in found] == is_refused * [f'caches.upstreams["{host}"]']


@pytest.mark.parametrize(
    ("changed", "path", "kind"),
    [
        ("storage: {}", "storage.kind", "found volume, which is local to a node, for caches on ev"),
        (
            "{storage: {}, placement: {kind: swarm, replicas: 3}}",
            "storage.kind",
            "for caches on 3 nodes; allowed: s3, or 1 for caches.placement.replicas",
        ),
        (
            "{storage: {onDestroy: delete}, placement: {kind: swarm, replicas: 1}}",
            "storage.onDestroy",
            "found delete, but the volumes are on other machines",
        ),
        ("ttl: 720h", "ttl", "found 720h, but several caches"),
        ("mirrorHost: auto", "mirrorHost", "found auto, but the Swarm is not this machine"),
        ("publishOn: [10.0.0.1]", "publishOn", "found ['10.0.0.1'], but a Swarm opens ports"),
        ("publishOn: ", "publishOn", "found none, but a Swarm opens ports"),
        ("namePrefix: a.b", "namePrefix", "found a.b, which names a network of the Swarm"),
        ("namePrefix: a-", "namePrefix", "found a-, which names a network of the Swarm"),
        (f"namePrefix: {'a' * 54}", 'upstreams["docker.io"]', "docker-io of 64 characters; allo"),
        (
            {
                "upstreams": {
                    host: {"port": port, "remoteUrl": "https://c.test"}
                    for host, port in (("a.b.test", 5000), ("a-b.test", 5001))
                }
            },
            'upstreams["a-b.test"]',
            "found the service name registry-dev-a-b-test, which a.b.test has as well",
        ),
        *(
            (f"placement: {{kind: swarm, replicas: {number}}}", "placement.replicas", "found")
            for number in (0, -1, "'2'", 1.0, True, 1001)
        ),
        ("placement: {kind: swarm, publish: all}", "placement.publish", "'host' or 'mesh'"),
        ("placement: {kind: swarm, nodeLabels: {a: b c}}", "placement.nodeLabels.a", "letters"),
    ],
)
def test_what_a_swarm_cannot_do_is_refused(changed: Any, path: str, kind: str) -> None:
    below = yaml.safe_load(changed) if isinstance(changed, str) else changed
    written = {**ONE_UPSTREAM, **SWARM, **below}
    secrets = {"s3Keys": S3_KEYS} if written["storage"] == OVER_S3["storage"] else {}

    assert_refused({"caches": written, **secrets}, f"caches.{path}", kind)


@pytest.mark.parametrize("place", ["upstream", "via"])
def test_a_password_is_not_sent_in_the_clear(place: str) -> None:
    user = {"username": "me"}
    changed, path, secret = {
        "upstream": (
            upstream(remoteUrl="http://a.test", **user),
            'upstreams["registry.test"]',
            "registry.test",
        ),
        "via": ({"via": {"mirrors": {"docker.io": "http://a.test"}, **user}}, "via", "via"),
    }[place]
    written = {**of(changed), "passwords": {secret: "hunter2"}}

    assert mistakes(written) == [
        (
            f"caches.{path}.username",
            (
                "found with http://a.test, which would send the password in the clear; "
                "allowed: only with https://"
            ),
        )
    ]


def test_the_port_of_a_url_may_be_the_one_of_its_scheme(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    own = {"mirrorHost": "a.test", "upstreams": {"quay.io": {"port": 443}}}

    written = of({**own, "via": {"mirrors": {"quay.io": "https://a.test"}}})

    assert_refused(written, 'caches.via.mirrors["quay.io"]', "this stack's own cache of quay.io")


# Secrets


NAMED = upstream(username="me")
VIA = {"via": {"mirrors": {"docker.io": "https://a.test"}}}


@pytest.mark.parametrize(
    ("changed", "secrets", "path", "kind"),
    [
        (NAMED, {}, 'passwords["registry.test"]', "found none; allowed: the one for caches.upstre"),
        (
            upstream(),
            {"passwords": {"registry.test": "hunter2"}},
            'passwords["registry.test"]',
            'found without caches.upstreams["registry.test"].username; allowed: only with it',
        ),
        (
            upstream(username=None),
            {"passwords": {"registry.test": "hunter2"}},
            'passwords["registry.test"]',
            "found without",
        ),
        *(
            (NAMED, {"passwords": {"registry.test": password}}, 'passwords["registry.test"]', kind)
            for password in ("", None, 5, ["hunter2"], {"a": "hunter2"}, "hunter2\ud800")
            for kind in ["found [hidden]; allowed: a password"]
        ),
        *(
            ({}, {"passwords": passwords}, "passwords", "found [hidden]; allowed: a mapping")
            for passwords in ("hunter2", ["hunter2"], 5, True, [])
        ),
        (
            {"via": {**VIA["via"], "username": "me"}},
            {},
            "passwords.via",
            "found none; allowed: the one for caches.via.username",
        ),
        (VIA, {"passwords": {"via": "hunter2"}}, "passwords.via", "found without caches.via.user"),
        (
            {**NAMED, "via": {"mirrors": {"registry.test": "https://a.test"}}},
            {"passwords": {"registry.test": "hunter2"}},
            'caches.upstreams["registry.test"].username',
            "found beside caches.via",
        ),
        (
            OVER_S3,
            {"s3Keys": {"accessKey": "a"}},
            "s3Keys.secretKey",
            "found none; allowed: the se",
        ),
        (OVER_S3, {"s3Keys": {**S3_KEYS, "token": "hunter2"}}, "s3Keys.token", "an unknown key"),
        (OVER_S3, {"s3Keys": "hunter2"}, "s3Keys", "found [hidden]; allowed: a mapping"),
        *(
            (
                OVER_S3,
                {"s3Keys": {"accessKey": "a", "secretKey": key}},
                "s3Keys.secretKey",
                "found [hidden]; allowed: printable ASCII without spaces",
            )
            for key in (5, "hunter2 b", "hunter2\nrole_arn = b", "ä")
        ),
        ({}, {"s3Keys": S3_KEYS}, "s3Keys", "found, but caches.storage.kind is not s3"),
        (GIVEN_TLS, {}, "tlsKey", "found none; allowed: the one for caches.tls.certificate, set w"),
        ({}, {"tlsKey": AUTHORITY.key}, "tlsKey", "found without caches.tls.certificate"),
        *(
            (GIVEN_TLS, {"tlsKey": key}, "tlsKey", "found [hidden]; allowed: a private key in PEM")
            for key in ({"a": 1}, "hunter2", PEM, AUTHORITY.key[:100], "\ud800")
        ),
        (GIVEN_TLS, {"tlsKey": OTHER.key}, "tlsKey", "found the key of another certificate"),
        ({}, {"readers": {"adam": "hunter2"}}, "readers", "found without caches.tls"),
        ({"tls": {}}, {"readers": ["adam"]}, "readers", "found [hidden]; allowed: a mapping"),
        *(
            (
                {"tls": {}},
                {"readers": {"adam": password}},
                "readers.adam",
                "found [hidden]; allowed: 1 to 72 bytes",
            )
            for password in ("", "x" * 73, "hunter2\nlines", 5)
        ),
        *(
            (
                {"tls": {}},
                {"readers": {name: "hunter2"}},
                in_yaml(("readers", name)),
                f"found {name!r}; allowed: letters, digits",
            )
            for name in ("", "a:b", "a b", "-a", "ä")
        ),
    ],
)
def test_a_wrong_secret_is_refused_and_not_shown(
    changed: dict[str, Any], secrets: dict[str, Any], path: str, kind: str
) -> None:
    written = {**of(changed), **secrets}

    assert_refused(written, path, kind)
    assert "hunter2" not in str(mistakes(written))


def test_a_missing_secret_is_told_with_the_command_that_sets_it() -> None:
    written = of({**NAMED, **OVER_S3, **GIVEN_TLS})

    assert {path: text.rpartition("set with ")[2] for path, text in mistakes(written)} == {
        path: f"pulumi config set --secret {arguments}"
        for path, arguments in {
            'passwords["registry.test"]': "--path 'passwords[\"registry.test\"]'",
            "s3Keys.accessKey": "--path 's3Keys.accessKey'",
            "s3Keys.secretKey": "--path 's3Keys.secretKey'",
            "tlsKey": "tlsKey < tlsKey.pem",
        }.items()
    }


@pytest.mark.parametrize(
    ("changed", "secrets"),
    [
        (NAMED, {"passwords": {"registry.test": "hunter2"}}),
        (OVER_S3, {"s3Keys": {"accessKey": "hunter2", "secretKey": "hunter2"}}),
        (GIVEN_TLS, {"tlsKey": AUTHORITY.key}),
        ({"tls": {}}, {"readers": {"adam": "hunter2"}}),
    ],
)
def test_a_secret_in_plain_text_is_refused_and_an_encrypted_one_is_not_shown(
    changed: dict[str, Any], secrets: dict[str, Any]
) -> None:
    (key,) = secrets
    written = {**of(changed), **secrets}

    shown = repr(settings.parse("dev", written))
    ((path, text),) = mistakes(written, plain=["passwords", "readers", "s3Keys", "tlsKey"])

    assert path == key
    assert text.startswith("found in plain text; allowed: encrypted, set with pulumi config set")
    for secret in ("hunter2", AUTHORITY.key):
        assert secret not in shown + text


@pytest.mark.parametrize("nothing", [None, {}, ""])
def test_a_secret_that_is_left_out_is_not_in_plain_text(nothing: Any) -> None:
    assert not mistakes({**of({}), "passwords": nothing}, plain=["passwords"])


# Texts that may have a password in them


@pytest.mark.parametrize(
    "url",
    [
        "https://me:hunter2@registry.test",
        "https://me:hunter2@registry.test/v2",
        "HTTPS://me:hunter2@registry.test",
        "https://me:hunter2/@registry.test",
        "https://me:hunter2?#@registry.test",
        "https://me:hunter2\n@registry.test",
        "https://me@home:hunter2@registry.test",
        "https:/me:hunter2@registry.test",
        "me:hunter2@registry.test",
        "ftp://me:hunter2@registry.test",
    ],
)
def test_credentials_in_a_url_are_refused_and_not_shown(url: str) -> None:
    written = of({**upstream(remoteUrl=url)})

    ((_, text),) = mistakes(written)

    assert "hunter2" not in text
    assert "[hidden]@registry.test" in text
    assert text.endswith("; credentials go into username and passwords")


@pytest.mark.parametrize(
    "below",
    [
        {"upstreams": {"docker.io": "https://me:hunter2@registry.test"}},
        {"upstreams": ["https://me:hunter2@registry.test"]},
        {"storage": {"volumePrefix": "https://me:hunter2@registry.test"}},
        {"via": {"mirrors": {"docker.io": "https://me:hunter2@registry.test"}}},
        upstream(remoteUrl=["https://me:hunter2@registry.test"]),
        upstream(image="https://me:hunter2@registry.test/image"),
    ],
)
def test_credentials_in_a_url_are_not_shown_wherever_it_stands(below: Any) -> None:
    ((_, text),) = mistakes(of(below))

    assert "hunter2" not in text
    assert "://[hidden]@registry.test" in text


@pytest.mark.parametrize(
    "below",
    [
        upstream(password="hunter2"),  # noqa: S106
        {"upstreams": [{"password": "hunter2"}]},
        {"via": {"mirrors": {"docker.io": "https://a.test"}, "token": "hunter2"}},
        {"storage": {"kind": "volume", "volumePrefix": {"secretKey": "hunter2"}}},
        {"tls": {"kind": "own", "names": [AUTHORITY.key]}},
    ],
)
def test_a_secret_at_a_wrong_place_is_not_shown(below: Any) -> None:
    ((_, text),) = mistakes(of(below))

    assert "hunter2" not in text
    assert AUTHORITY.key[30:60] not in text


# All at once


def test_all_mistakes_are_reported_together() -> None:
    written = {
        "caches": {
            "upstreams": {
                "docker.io": {"port": 80, "username": "me"},
                "quay.io": {"port": 5004, "remoteUrl": "https://me:hunter2@quay.io"},
                "ghcr.io": None,
                "gcr.io": {"port": 5003, "remoteUrl": "http://gcr.io", "username": ""},
                "registry.test": {"port": 5000},
                "other.test": 5,
            },
            "ttl": "5 days",
            "mirrorHost": "not an address",
            "storge": {},
            "storage": {"kind": "s3", "bucket": "-"},
            "placement": {"kind": "swarm"},
            "publishOn": ["10.0.0.9"],
            "via": {"mirrors": {"nvcr.io": "https://a.test"}, "zzz": 1},
        },
        "clusters": {"a": {"workers": -1}, "b": {"mirrors": {"nvcr.io": False}}, "C": {}},
        "mirrorsFrom": "other",
        "images": {"platform": "amd64"},
        "passwords": {"mcr.microsoft.com": "hunter2", "docker.io": 5},
        "readers": {"adam": "hunter2"},
        "tlsKey": "hunter2",
        "cachess": {},
    }

    found = mistakes(written, plain=["tlsKey"])

    assert sorted(path for path, _ in found) == [
        "caches.mirrorHost",
        "caches.publishOn",
        "caches.storage.bucket",
        "caches.storge",
        "caches.ttl",
        'caches.upstreams["docker.io"].port',
        'caches.upstreams["gcr.io"].username',
        'caches.upstreams["ghcr.io"].port',
        'caches.upstreams["other.test"]',
        'caches.upstreams["quay.io"].remoteUrl',
        'caches.upstreams["registry.test"].remoteUrl',
        'caches.via.mirrors["nvcr.io"]',
        "caches.via.zzz",
        "cachess",
        "clusters.C",
        "clusters.a.workers",
        "clusters.b.cidr",
        'clusters.b.mirrors["nvcr.io"]',
        "images.platform",
        "mirrorsFrom",
        'passwords["docker.io"]',
        'passwords["gcr.io"]',
        'passwords["mcr.microsoft.com"]',
        "readers",
        "s3Keys.accessKey",
        "s3Keys.secretKey",
        "tlsKey",
        "tlsKey",
    ]
    assert "hunter2" not in str(found)


def test_the_message_names_the_stack_file() -> None:
    assert mistakes({}, stack="my-stack") == [
        (
            "caches.upstreams",
            "found none; allowed: at least one upstream, such as docker.io: {port: 5000}",
        )
    ]


def from_path(text: str) -> tuple[str | int, ...]:
    """A path as `pulumi config set --path` reads it (ParsePropertyPath of the Pulumi SDK)."""
    parts: list[str | int] = []
    while text:
        if name := re.match(r"\.?([^.\[]+)", text):
            parts.append(name[1])
        elif quoted := re.match(r'\["((?:\\"|[^"])*)"\]', text):
            name = quoted
            parts.append(quoted[1].replace('\\"', '"'))
        elif index := re.match(r"\[(\d+)\]", text):
            name = index
            parts.append(int(index[1]))
        assert name is not None, text
        text = text[name.end() :]
    return tuple(parts)


# Pulumi's syntax has no backslash before the closing quote, and a line no line end.
NAMES = st.text() | st.text("abc.[]\"' -_1")


@given(
    st.lists(
        NAMES.filter(lambda name: "\\" not in name and name.isprintable()) | st.integers(0, 9),
        max_size=4,
    )
)
def test_a_path_is_one_that_pulumi_config_set_takes(parts: list[str | int]) -> None:
    path = ("caches", *parts)

    assert from_path(in_yaml(path)) == path


ADDRESSES = st.ip_addresses(network="10.0.0.0/8").map(str)
HOSTS = st.sampled_from([*CATALOGUE, "registry.test", "localhost:5000", "10.0.0.1:80"])
OTHERS: Mapping[str, st.SearchStrategy[Any]] = {
    "image": st.just("registry:3.0.0"),
    "namePrefix": st.just("caches"),
    "storage": st.fixed_dictionaries(
        {},
        optional={
            "volumePrefix": st.just("cached"),
            "onDestroy": st.sampled_from(["keep", "delete"]),
        },
    ),
    "ttl": st.sampled_from(["never", "720h"]),
    "mirrorHost": st.sampled_from(["auto", "host.docker.internal"]) | ADDRESSES,
    "publishOn": st.lists(ADDRESSES, min_size=1, unique=True),
    "logs": st.fixed_dictionaries(
        {},
        optional={
            "level": st.sampled_from(["error", "warn", "info", "debug"]),
            "maxSize": st.integers(1, 999).map("{}m".format),
            "maxFiles": st.integers(1, 100),
        },
    ),
    "memoryLimit": st.integers(16, 4096).map("{}m".format),
}


@st.composite
def right_settings(draw: st.DrawFn) -> dict[str, Any]:
    hosts = draw(st.lists(HOSTS, min_size=1, unique=True))
    ports = st.lists(
        st.integers(1024, 65535), min_size=len(hosts), max_size=len(hosts), unique=True
    )
    upstreams: dict[str, dict[str, Any]] = {}
    passwords: dict[str, str] = {}
    for host, port in zip(hosts, draw(ports), strict=True):
        upstreams[host] = {"port": port}
        if host not in CATALOGUE or draw(st.booleans()):
            upstreams[host]["remoteUrl"] = draw(st.sampled_from(["https://a.test", "https://b:80"]))
        if draw(st.booleans()):
            upstreams[host]["username"] = draw(st.text("aB9 .@$ä", min_size=1))
            passwords[host] = draw(st.text(st.characters(codec="utf-8"), min_size=1))
    caches = {"upstreams": upstreams} | draw(st.fixed_dictionaries({}, optional=dict(OTHERS)))
    return {"caches": caches, "passwords": passwords}


@given(right_settings())
def test_every_right_combination_parses_and_survives_being_written_out(
    written: dict[str, Any],
) -> None:
    parsed = settings.parse("dev", written)

    dumped = caches_of(parsed).model_dump(mode="json", by_alias=True)
    assert settings.parse("dev", written | {"caches": json.loads(json.dumps(dumped))}) == parsed
    for key, value in written["caches"].items():
        if not isinstance(value, dict):
            assert dumped[key] == value
    assert parsed.secrets.passwords == {
        host: pydantic.SecretStr(password) for host, password in written["passwords"].items()
    }


# What Pulumi hands over


def load(config: dict[str, str], secret_keys: tuple[str, ...] = ()) -> StackSettings:
    loaded: list[StackSettings] = []
    stack_graph.run(
        lambda: loaded.append(settings.load()),
        config={key if ":" in key else f"{PROJECT}:{key}": one for key, one in config.items()},
        secret_keys=tuple(f"{PROJECT}:{key}" for key in secret_keys),
    )
    return loaded[0]


PROJECT = "talos-registry-cache"
CACHES = json.dumps(ONE_UPSTREAM)


def test_the_settings_are_the_ones_of_the_running_stack() -> None:
    before = pulumi.get_project(), pulumi.get_stack(), pulumi.runtime.is_dry_run()

    loaded = load(
        {
            "caches": json.dumps(upstream(username="me")),
            "clusters": '{"demo": {"workers": 2}}',
            "images": '{"references": ["nginx"]}',
            "passwords": '{"registry.test": "p"}',
            "docker:host": "unix:///another-project-s-key",
        },
        secret_keys=("passwords",),
    )

    assert loaded.stack == "dev"
    assert caches_of(loaded).upstreams["registry.test"].port == 5000
    assert loaded.clusters["demo"].workers == 2
    assert loaded.images
    assert loaded.secrets.passwords == {"registry.test": pydantic.SecretStr("p")}
    assert (pulumi.get_project(), pulumi.get_stack(), pulumi.runtime.is_dry_run()) == before


def test_a_stack_may_have_a_number_for_a_name() -> None:
    assert load({"clusters": '{"demo": {}}', "mirrorsFrom": "5"}).mirrors_from == "5"


@pytest.mark.parametrize(
    ("config", "line"),
    [
        ({}, "caches.upstreams: found none"),
        ({"caches": "[" * 100_000}, "caches: found '[[[["),
        ({"caches": "not JSON"}, "caches: found 'not JSON'; allowed: a mapping"),
        ({"caches": CACHES, "passwords": "hunter2 in plain"}, "passwords: found [hidden]; allowed"),
        ({"caches": CACHES, "passwords": '{"a": "hunter2"}'}, "passwords: found in plain text"),
        ({"caches": CACHES, "cachess": "hunter2"}, "cachess: found an unknown key (did you mean c"),
        ({"caches": CACHES, "zz": "hunter2"}, "zz: found an unknown key; allowed: "),
    ],
)
def test_wrong_configuration_is_a_mistake_like_others_and_no_secret_is_shown(
    config: dict[str, str], line: str
) -> None:
    with pytest.raises(SettingsError) as refused:
        load(config)

    assert f"\n  {line}" in str(refused.value)
    assert "hunter2" not in str(refused.value)


# The stacks of the project


# The secrets that each person who brings the stack up sets.
NOT_IN_THE_FILE = {"team": {"s3Keys": S3_KEYS}}


def of_stack(stack: str) -> StackSettings:
    keys = yaml.safe_load((ROOT / f"Pulumi.{stack}.yaml").read_text())["config"]
    written = {key.removeprefix(f"{PROJECT}:"): value for key, value in keys.items()}
    return settings.parse(stack, {**written, **NOT_IN_THE_FILE.get(stack, {})})


@pytest.mark.parametrize("stack", [path.stem.removeprefix("Pulumi.") for path in STACK_FILES])
def test_every_stack_file_is_right_for_a_user_who_is_not_root(stack: str) -> None:
    parsed = of_stack(stack)

    assert parsed.caches or parsed.clusters


@pytest.mark.parametrize(
    ("stack", "ports"),
    [
        (
            "dev",
            {
                "docker.io": 5000,
                "registry.k8s.io": 5001,
                "quay.io": 5002,
                "gcr.io": 5003,
                "ghcr.io": 5004,
            },
        ),
        ("guide", {"docker.io": 5000, "k8s.gcr.io": 5001, "quay.io": 5002}),
    ],
)
def test_a_stack_has_the_upstreams_and_ports_that_people_know(
    stack: str, ports: dict[str, int]
) -> None:
    parsed = of_stack(stack)

    assert {host: one.port for host, one in caches_of(parsed).upstreams.items()} == ports
    assert volume_storage_of(parsed).on_destroy == "keep"


def test_the_guide_runs_quay_io_on_an_image_of_its_own() -> None:
    caches = caches_of(of_stack("guide"))

    with_own = {host for host, one in caches.upstreams.items() if one.image is not None}
    assert with_own == {"quay.io"}
    assert caches.upstreams["quay.io"].image != caches.image
    assert caches.images == {caches.image, caches.upstreams["quay.io"].image}


def test_the_ci_stack_keeps_nothing_and_shares_no_port_with_the_others() -> None:
    ci, *others = map(of_stack, ("ci", "dev", "guide"))

    assert volume_storage_of(ci).on_destroy == "delete"
    taken = {one.port for other in others for one in caches_of(other).upstreams.values()}
    assert not taken & {one.port for one in caches_of(ci).upstreams.values()}


def test_the_project_declares_the_keys_that_are_read() -> None:
    project = yaml.safe_load((ROOT / "Pulumi.yaml").read_text())

    assert project["name"] == stack_graph.PROJECT
    keys = {str(field.alias) for field in StackSettings.model_fields.values()}
    assert project["config"].keys() == keys
    texts = {key for key, one in project["config"].items() if one["type"] == "string"}
    assert texts == {*settings.TEXTS}
