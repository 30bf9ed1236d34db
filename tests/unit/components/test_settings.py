import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pulumi
import pydantic
import pytest
import yaml

from components import settings
from components.settings import SettingsError, StackSettings
from components.settings.mistakes import in_yaml
from components.settings.placement import SwarmPlacement
from components.settings.storage import S3Storage
from components.settings.upstream import Upstream
from talos_registry_cache.registry.catalogue import CATALOGUE
from tests.unit.components import stack_graph
from tests.unit.components.certificates import AUTHORITY, OTHER
from tests.unit.components.parsed_settings import (
    ONE_UPSTREAM,
    assert_refused,
    assert_wrong,
    caches_of,
    each,
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
PUBLIC = {"mirrorHost": "caches.test", "publishOn": ["0.0.0.0"]}
SWARM = {**OVER_S3, **PUBLIC, "placement": {"kind": "swarm"}}
# Only caches on every node have fronts.
SOME_NODES = {**OVER_S3, **PUBLIC, "placement": {"kind": "swarm", "replicas": 3}}
ON_ONE_NODE = {**PUBLIC, "placement": {"kind": "swarm", "replicas": 1}}
VIA = {"mirrors": {"docker.io": "https://a.test"}}
VIA_QUAY = {"mirrors": {"quay.io": "https://a.test"}}
USER = {"username": "me"}


@pytest.fixture(autouse=True)
def _is_not_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)


def upstream(**written: Any) -> dict[str, Any]:
    """A valid upstream outside of the catalogue, with these settings."""
    known = {"port": 5000, "remoteUrl": "https://registry.test"}
    return {"upstreams": {"registry.test": known | written}}


# Defaults


def test_the_catalogue_supplies_what_the_stack_file_leaves_out() -> None:
    written = {"port": 6000, "remoteUrl": "http://mirror.test:8080"}

    docker_hub = parsed_caches({"upstreams": {"docker.io": written}}).upstreams["docker.io"]

    assert (docker_hub.port, docker_hub.remote_url) == (6000, "http://mirror.test:8080")
    from_catalogue = parsed_caches("upstreams: {docker.io: }").upstreams["docker.io"]
    assert from_catalogue == Upstream(port=5000, remote_url="https://registry-1.docker.io")
    without_slash = parsed_caches(upstream(remoteUrl="http://10.0.0.1:5000/"))
    assert without_slash.upstreams["registry.test"].remote_url == "http://10.0.0.1:5000"


def test_by_default_images_are_kept_forever() -> None:
    parsed = settings.parse("dev", {"caches": ONE_UPSTREAM})
    caches = caches_of(parsed)

    assert volume_storage_of(parsed).on_destroy == "keep"
    assert caches.retention is None
    assert caches.offline is False
    assert caches.publish_on is None
    empty = parsed_caches("{storage: {}, placement: {}, tls: {}}")
    assert (empty.storage.kind, empty.placement.kind) == ("volume", "engine")
    assert empty.tls
    assert empty.tls.kind == "own"
    on_swarm = parsed_caches(SWARM, s3Keys=S3_KEYS)
    assert on_swarm.storage == S3Storage(
        kind="s3", bucket="caches", region="us-east-1", path_style=True
    )
    assert on_swarm.placement == SwarmPlacement(kind="swarm", publish="host")


# Valid values


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(
            ("retention", {"unusedFor": period, "maxSize": None})
            for period in ("720h", "1h30m", "1.5h", "3600s")
        ),
        ("retention", {"unusedFor": None, "maxSize": "20g"}),
        *(("mirrorHost", value) for value in ("auto", "10.5.0.1", "host.docker.internal")),
        *(("memoryLimit", value) for value in ("64m", "2g", "65536k")),
        *(("image", value) for value in ("registry:3.1.2", f"a.b:5000/c@sha256:{'0' * 64}")),
        *(("namePrefix", value) for value in ("registry", "my_caches-1.2")),
        *(("publishOn", value) for value in (["127.0.0.1"], ["127.0.0.1", "10.5.0.1"])),
    ],
)
def test_valid_values_are_kept_as_written(key: str, value: Any) -> None:
    dumped = parsed_caches({key: value}).model_dump(mode="json", by_alias=True)

    assert dumped[key] == value


def test_a_ca_may_be_a_file_that_also_has_comments(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_text(f"# Autorité\n{PEM}\n# Other\n{OTHER.certificate}")

    parsed = parsed_caches({**upstream(ca=str(file)), "tls": None})

    assert parsed.upstreams["registry.test"].ca == PEM + OTHER.certificate


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
    ("below", "secrets"),
    [
        *(
            (f"upstreams: {{'{host}': {{port: 5000, remoteUrl: 'https://a.test'}}}}", {})
            for host in ("registry.test:5000", "localhost", "localhost:80", "10.0.0.1:5000")
        ),
        (upstream(username="me"), {"passwords": {"registry.test": "p"}}),
        (upstream(username=None), {"passwords": None}),
        (OVER_S3, {"s3Keys": S3_KEYS}),
        (GIVEN_TLS, {"tlsKey": AUTHORITY.key}),
        ("tls: {}", {"readers": {"adam": "s3cret", "eve@home": "x" * 72}}),
        ({"via": {**VIA, **USER}}, {"passwords": {"via": "p"}}),
        (
            {"upstreams": {"docker.io": USER, "quay.io": None}, "via": VIA_QUAY},
            {"passwords": {"docker.io": "p"}},
        ),
        (SWARM, {"s3Keys": S3_KEYS}),
        # A single node may have volumes.
        (ON_ONE_NODE, {}),
    ],
)
def test_valid_combinations_are_accepted(
    below: str | dict[str, Any], secrets: dict[str, Any]
) -> None:
    assert mistakes({**of(below), **secrets}) == []


# Invalid values


BASE: Mapping[str, Any] = {
    "caches": {
        "upstreams": {
            "docker.io": {},
            "registry.test": {"port": 5009, "remoteUrl": "https://registry.test"},
            "with-user.test": {"port": 5008, "remoteUrl": "https://a.test", "username": "me"},
        },
        "tls": {"names": ["a.test"]},
        "via": {"mirrors": {"docker.io": "https://a.test"}},
        "publishOn": ["127.0.0.1", "10.0.0.1"],
        "extraHosts": {"here.test": "10.0.0.1"},
    },
    "passwords": {"with-user.test": "hunter2"},
    "readers": {"adam": "hunter2"},
}
ON_SWARM: Mapping[str, Any] = {
    "caches": {**ONE_UPSTREAM, **SWARM, **GIVEN_TLS},
    "s3Keys": S3_KEYS,
    "tlsKey": AUTHORITY.key,
}
REMOTE_URL = "caches upstreams registry.test remoteUrl"
A_MAPPING = "allowed: a mapping"
A_NAME = "letters, digits, dots, dashes and underscores"
A_HOST = "auto, an IPv4 address, or a host name"
A_SIZE = "a number with k, m or g, such as 10m"
AN_IMAGE = "an image reference such as registry:3.1.2"
A_URL = "allowed: http:// or https:// with a host"


@pytest.mark.parametrize(
    ("base", "path", "value", "kind"),
    each(
        BASE,
        [
            ("caches", [["a"], "text", 5, 1.5, True], A_MAPPING),
            ("caches upstreams", [["a"], "text", 5, 1.5, True], A_MAPPING),
            ("caches upstreams", [{}, None], "found none; allowed: at least one upstream"),
            ("caches upstreams docker.io", [["a"], "text", 5, 1.5, True], A_MAPPING),
            ("caches upstreams docker.io port", ["5000", 5.0, True, None, [5]], "a whole number"),
            ("caches upstreams docker.io port", [-1, 80, 1023, 65536, 10**30], "1024 to 65535; lo"),
            ("caches upstreams docker.io image", ["a b"], AN_IMAGE),
            ("caches upstreams docker.io zzz", [1], "an unknown key; allowed: port, remoteUrl, "),
            ("caches upstreams docker.io remoteURL", [1], "(did you mean remoteUrl?)"),
            ("caches upstreams with-user.test username", [""], "non-empty text"),
            ("caches upstreams with-user.test username", ["a:b", "a" * 256], "no colon"),
            (REMOTE_URL, ["", "registry.test", "ftp://a.test", "https://", "https:///v2"], A_URL),
            (REMOTE_URL, ["https://a test", "https://a.test:b", "https://a.test:65536"], A_URL),
            (REMOTE_URL, ["https://a.test?a=b", "https://a.test#a", "https://a.test\n"], A_URL),
            (
                REMOTE_URL,
                ["https://a.test/v2", "https://a.test//"],
                "on the nodes, with overridePath",
            ),
            (REMOTE_URL, ["http://localhost:5000", "https://127.0.0.2"], "not loopback"),
            (REMOTE_URL, ["https://224.0.0.1"], "a unicast address"),
            ("caches name_prefix", ["a"], "(did you mean namePrefix?); allowed: upstreams, image"),
            ("caches retention", [{}], "found no limit; allowed: unusedFor, maxSize or both"),
            ("caches retention unusedFor", ["", "5 days", "7d", "-1h", "h", "٣h"], "a duration"),
            ("caches retention unusedFor", ["59m", "876001h"], "from 1h to 876000h"),
            ("caches retention maxSize", ["", "20", "20t", "0g", "20.5g"], A_SIZE),
            ("caches mirrorHost", ["", "10.5.0.256", "10.5.0.1:5000", "http://10.5.0.1"], A_HOST),
            ("caches mirrorHost", ["fd00::1", "a b", "0.0.0.0", "224.0.0.1", "240.0.0.1"], A_HOST),
            ("caches memoryLimit", ["512", "0m", "1٢m"], A_SIZE),
            ("caches memoryLimit", ["15m", "1025g"], "from 16m to 1024g"),
            ("caches image", ["", "registry 3", "a@sha256:0"], AN_IMAGE),
            ("caches image", ["registry", "a.b:5000/a:latest"], "with a fixed tag or a digest"),
            ("caches namePrefix", ["", "-registry", "a/b"], A_NAME),
            ("caches publishOn", [[]], "found none; allowed: addresses of this machine"),
            ("caches publishOn", ["127.0.0.1"], "a list"),
            ("caches publishOn 1", ["localhost", "fd00::1", "", 1, True, None], "an IPv4 address"),
            ("caches publishOn 1", ["224.0.0.1"], "a unicast IPv4 address"),
            ("caches publishOn 1", ["127.0.0.1"], "each address once"),
            ("caches publishOn 1", ["0.0.0.0"], "0.0.0.0 alone"),
            ("caches logs", [["a"], "text", 5, 1.5, True], A_MAPPING),
            ("caches logs level", ["loud"], "'error', 'warn', 'info' or 'debug'"),
            ("caches logs maxSize", ["big"], A_SIZE),
            ("caches logs maxSize", ["1025g"], "from 1k to 1024g"),
            ("caches logs maxFiles", [0], "greater than or equal to 1"),
            ("caches logs maxFiles", [101], "less than or equal to 100"),
            ("caches storage", [["a"], "text", 5, 1.5, True], A_MAPPING),
            ("caches storage kind", ["nfs", None, 5], "allowed: volume, s3"),
            ("caches storage onDestroy", ["maybe"], "'keep' or 'delete'"),
            ("caches placement kind", ["kubernetes", []], "engine, swarm"),
            ("caches tls kind", ["acme", {}], "own, given"),
            ("caches tls names 0", ["a b"], "a host name or an IPv4 address"),
            ("caches takeOverFrom", [" a"], "a list"),
            ("caches offline", ["yes"], "true or false"),
            ("caches extraHosts a.test", ["b.test", "::1", 5], "an IPv4 address"),
            ("caches extraHosts a.test", ["127.0.0.1", "0.0.0.0"], "not loopback"),
            ("caches extraHosts a_b", ["10.0.0.1"], "a host name such as"),
            ("caches via mirrors", [{}, None], "found"),
            ("caches via ca", ["MII" + "C" * 500], f"found 'MII{'C' * 37}'; allowed: PEM cert"),
            ("caches via ca", ["-----BEGIN CERTIFICATE-----\nMII\n"], "found unreadable certifi"),
            ("caches via ca", [PEM + AUTHORITY.key], "found a private key; allowed: only PEM"),
            ("caches via ca", ["/missing.pem"], "or a file with them (No such file or direct"),
            ("caches via ca", ["/etc", "/dev/zero"], "a file with them (it is not a regular file"),
            ("caches via ca", ["/etc/passwd"], "found '/etc/passwd'; allowed: PEM certificates"),
            ("caches upstreams with-user.test ca", ["nothing.pem"], "found 'nothing.pem'; allowe"),
            ("passwords with-user.test", ["", None, 5, ["a"], {}, "hunter2\ud800"], "a password"),
            ("passwords", ["hunter2", ["hunter2"], 5, True], f"found [hidden]; {A_MAPPING}"),
            ("readers", ["hunter2", ["hunter2"]], f"found [hidden]; {A_MAPPING}"),
            ("readers adam", ["", "x" * 73, "hunter2\nb", 5], "found [hidden]; allowed: 1 to 72"),
            ("s3Keys", ["hunter2"], f"found [hidden]; {A_MAPPING}"),
            (
                "tlsKey",
                ["hunter2", {"a": 1}, PEM, AUTHORITY.key[:99], "\ud800"],
                "a private key in",
            ),
            ("cachess", ["hunter2", {}], "found an unknown key (did you mean caches?); allowed: "),
            # Valid values that contradict another setting.
            ("caches upstreams registry.test port", [5000], "found 5000, which docker.io uses"),
            ("caches wildcard port", [5000], "found 5000, which docker.io uses"),
            ("caches local port", [5000], "found 5000, which docker.io uses"),
            ("caches via mirrors quay.io", ["https://a.test"], "caches.upstreams has no quay.io"),
            ("caches via mirrors docker.io", ["http://10.0.0.1:5009"], "own cache of registry.tes"),
            (REMOTE_URL, ["https://10.0.0.1:5000/"], "this stack's own cache of docker.io"),
            (REMOTE_URL, ["http://here.test:5000"], "this stack's own cache of docker.io"),
            ("passwords docker.io", ["hunter2"], 'found without caches.upstreams["docker.io"].use'),
            ("passwords via", ["hunter2"], "found without caches.via.username; allowed: only with"),
            ("readers -a", ["hunter2"], "found '-a'; allowed: letters, digits"),
            ("readers a:b", ["hunter2"], "found 'a:b'; allowed: letters, digits"),
            ("s3Keys", [S3_KEYS], "found, but caches.storage.kind is not s3"),
            ("tlsKey", [AUTHORITY.key], "found without caches.tls.certificate"),
            ("mirrorsFrom", ["other"], "found beside caches"),
        ],
    )
    + each(
        ON_SWARM,
        [
            ("caches local", [{"port": 5011}], "found local with caches on a Swarm"),
            (
                "caches storage bucket",
                ["", "ab", "Caches", "a/b", "-a-", "a..b", "a" * 64],
                "bucke",
            ),
            ("caches storage pathStyle", ["yes"], "true or false"),
            ("caches storage endpoint", ["a.test"], A_URL),
            ("caches storage region", ["a b"], A_NAME),
            ("caches storage ca", [5], "a text"),
            ("caches placement replicas", [0, -1, "2", 1.0, True, 1001], "found"),
            ("caches placement publish", ["all"], "'host' or 'mesh'"),
            ("caches placement nodeLabels a", ["b c", "", "b" * 129], "up to 128 letters"),
            ("s3Keys secretKey", [5, "hunter2 b", "hunter2\nb", "ä"], "[hidden]; allowed: printa"),
            ("s3Keys token", ["hunter2"], "found an unknown key; allowed: accessKey, secretKey"),
            ("tlsKey", [OTHER.key], "found the key of another certificate"),
            # Valid values that a Swarm does not support.
            ("caches mirrorHost", ["auto"], "found auto, but the Swarm is not this machine"),
            ("caches publishOn", [["10.0.0.1"]], "found ['10.0.0.1'], but a Swarm opens ports"),
            ("caches publishOn", [None], "found none, but a Swarm opens ports"),
            ("caches namePrefix", ["a.b", "a-"], "which names a network of the Swarm"),
        ],
    ),
)
def test_an_invalid_value_is_reported_at_its_path_and_no_secret_is_shown(
    base: Mapping[str, Any], path: str, value: Any, kind: str
) -> None:
    assert_wrong(base, path, value, kind)


@pytest.mark.parametrize(
    ("below", "path", "found"),
    [
        ("{upstreams: {docker.io: {port: 5010}}}", "local", "5010, which docker.io uses"),
        ("{wildcard: {port: 5010}}", "local", "5010, which caches.wildcard uses"),
        (
            "{wildcard: {}, upstreams: {docker.io: {port: 5009}}}",
            "wildcard",
            "5009, which docker.io uses",
        ),
    ],
)
def test_a_port_that_two_settings_have_is_refused_in_one_sentence_that_names_both(
    below: str, path: str, found: str
) -> None:
    written = {"local": {"port": 5010}, **yaml.safe_load(below)}

    assert mistakes(of(written)) == [
        (f"caches.{path}.port", f"found {found}; allowed: a port of its own")
    ]


def test_the_ports_of_the_documents_and_of_the_defaults_do_not_collide() -> None:
    document = Path(__file__).parents[3] / "docs" / "local-images.md"
    (example,) = re.findall("```yaml\n(.*?)```", document.read_text(), re.DOTALL)
    caches = yaml.safe_load(example)["caches"]
    upstreams = {host: None for host, known in CATALOGUE.items() if known.port}
    del upstreams["k8s.gcr.io"]  # The former name of registry.k8s.io, with its port.

    assert mistakes({"caches": {**caches, "upstreams": upstreams, "wildcard": {}}}) == []


@pytest.mark.parametrize(
    ("below", "secrets"),
    [
        (ON_ONE_NODE, {}),
        (SWARM, {"s3Keys": S3_KEYS}),
        (OVER_S3, {"s3Keys": S3_KEYS}),
        ({"offline": True}, {}),
    ],
    ids=["volume of a Swarm", "Swarm", "object store", "offline"],
)
def test_retention_is_refused_where_it_could_lose_images(
    below: Any, secrets: dict[str, Any]
) -> None:
    written = of(below)
    written["caches"]["retention"] = {"maxSize": "1g"}

    ((path, text),) = mistakes({**written, **secrets})

    assert path == "caches.retention"
    assert text.endswith("; allowed: none; use cachectl prune")


def test_a_registry_outside_the_catalogue_needs_a_url_and_a_port() -> None:
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
def test_an_unknown_key_is_reported_with_the_keys_of_its_kind(
    key: str, of_kind: str, known: str
) -> None:
    found = mistakes(of(f"{key}: {of_kind}, zzz: 1}}"))

    assert (f"caches.{key}.zzz", f"found an unknown key; allowed: {known}") in found


# Rules across settings


DOCKER_IO = 'caches.upstreams["docker.io"]'
OF_DOCKER_IO = {"passwords": {"docker.io": "hunter2"}}
OF_VIA = {"passwords": {"via": "hunter2"}}
OF_S3 = {"s3Keys": S3_KEYS}
IN_THE_CLEAR = "found with http://a.test, which would send the password in the clear; allowed: "
SAME_NAMES = """
a.b.test: {port: 5000, remoteUrl: https://c.test}
a-b.test: {port: 5001, remoteUrl: https://c.test}
"""


@pytest.mark.parametrize(
    ("below", "secrets", "path", "kind"),
    [
        ("upstreams: {docker.io: {username: me}}", {}, 'passwords["docker.io"]', "found none"),
        ({"via": {**VIA, **USER}}, {}, "passwords.via", "the one for caches.via.username, set"),
        ("storage: {kind: s3}", OF_S3, "caches.storage.bucket", "found none; allowed: name of"),
        (OVER_S3, {"s3Keys": {"accessKey": "a"}}, "s3Keys.secretKey", "found none; allowed: the"),
        (GIVEN_TLS, {}, "tlsKey", "found none; allowed: the one for caches.tls.certificate, set"),
        ({}, {"readers": {"adam": "hunter2"}}, "readers", "found without caches.tls"),
        (
            {"via": VIA, "upstreams": {"docker.io": USER}},
            OF_DOCKER_IO,
            f"{DOCKER_IO}.username",
            "found beside caches.via",
        ),
        (
            {"via": VIA, "upstreams": {"docker.io": {"ca": PEM}}},
            {},
            f"{DOCKER_IO}.ca",
            "found beside caches.via",
        ),
        (
            "upstreams: {docker.io: {remoteUrl: 'http://a.test', username: me}}",
            OF_DOCKER_IO,
            f"{DOCKER_IO}.username",
            IN_THE_CLEAR,
        ),
        (
            "via: {mirrors: {docker.io: 'http://a.test'}, username: me}",
            OF_VIA,
            "caches.via.username",
            IN_THE_CLEAR,
        ),
        (
            {"placement": {"kind": "swarm"}, **PUBLIC},
            {},
            "caches.storage.kind",
            "found volume, which is local to a node, for caches on every node",
        ),
        (
            {"placement": {"kind": "swarm", "replicas": 3}, **PUBLIC},
            {},
            "caches.storage.kind",
            "for caches on 3 nodes; allowed: s3, or 1 for caches.placement.replicas",
        ),
        (
            {**ON_ONE_NODE, "storage": {"onDestroy": "delete"}},
            {},
            "caches.storage.onDestroy",
            "found delete, but the volumes are on other machines",
        ),
        ({**SOME_NODES, "namePrefix": "a" * 54}, OF_S3, DOCKER_IO, "docker-io of 64 characters; "),
        (
            {**SWARM, "namePrefix": "a" * 45, "front": {}},
            OF_S3,
            DOCKER_IO,
            "docker-io-registry of 64 characters; allowed",
        ),
        (
            {**SOME_NODES, "front": {"tagFreshness": "5m"}},
            OF_S3,
            "caches.front",
            "found front with caches.placement.replicas; allowed: none, or caches on every node",
        ),
        (
            {**SOME_NODES, "upstreams": yaml.safe_load(SAME_NAMES)},
            OF_S3,
            'caches.upstreams["a-b.test"]',
            "found the service name registry-dev-a-b-test, which a.b.test has as well",
        ),
        *(
            (
                {"upstreams": {host: {"port": 5000, "remoteUrl": "https://a.test"}}},
                {},
                in_yaml(("caches", "upstreams", host)),
                f"found {host!r}; allowed: a registry host",
            )
            for host in (
                "", "library", "Quay.io", "https://quay.io", "quay.io/a", "a b.c", "a.b:65536",
                "a" * 64 + ".b",
            )
        ),
    ],
)  # fmt: skip
def test_invalid_combinations_are_refused(
    below: str | dict[str, Any], secrets: dict[str, Any], path: str, kind: str
) -> None:
    assert_refused({**of(below), **secrets}, path, kind)


def test_a_parent_cache_at_an_own_port_is_found_by_the_default_port_of_its_scheme(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    own = {"mirrorHost": "a.test", "upstreams": {"quay.io": {"port": 443}}, "via": VIA_QUAY}

    assert_refused(of(own), 'caches.via.mirrors["quay.io"]', "this stack's own cache of quay.io")


@pytest.mark.parametrize("key", ["namePrefix", "volumePrefix"])
@pytest.mark.parametrize(("length", "is_refused"), [(21, False), (22, True)])
def test_names_longer_than_the_engine_accepts_are_refused(
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


# Secrets


def test_a_missing_secret_is_reported_with_the_command_that_sets_it() -> None:
    written = of({**upstream(username="me"), **OVER_S3, **GIVEN_TLS})

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
        (upstream(username="me"), {"passwords": {"registry.test": "hunter2"}}),
        (OVER_S3, {"s3Keys": {"accessKey": "hunter2", "secretKey": "hunter2"}}),
        (GIVEN_TLS, {"tlsKey": AUTHORITY.key}),
        ({"tls": {}}, {"readers": {"adam": "hunter2"}}),
    ],
)
def test_secrets_in_plain_text_are_refused_and_never_shown(
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
    nothings: list[Any] = [None, {}, ""]
    for nothing in nothings:
        assert not mistakes({**of({}), key: nothing}, plain=[key])


# Texts that may contain a password


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
        upstream(password="hunter2"),  # noqa: S106
        {"upstreams": [{"password": "hunter2"}]},
        {"via": {**VIA, "token": "hunter2"}},
        {"storage": {"kind": "volume", "volumePrefix": {"secretKey": "hunter2"}}},
        {"tls": {"kind": "own", "names": [AUTHORITY.key]}},
    ],
)
def test_secrets_in_the_wrong_place_are_not_shown(below: Any) -> None:
    ((_, text),) = mistakes(of(below))

    assert "hunter2" not in text
    assert AUTHORITY.key[30:60] not in text
    assert ("://[hidden]@registry.test" in text) is ("me:hunter2@" in str(below))


# All at once


def test_all_mistakes_are_reported_together() -> None:
    written = {
        "caches": {
            "upstreams": {
                "docker.io": {"port": 80, "username": "me"},
                "gcr.io": {"port": 5004, "remoteUrl": "http://gcr.io", "username": ""},
                "ghcr.io": None,
                "other.test": 5,
            },
            "retention": {"unusedFor": "5 days"},
            "storge": {},
            "storage": {"kind": "s3", "bucket": "-"},
            "placement": {"kind": "swarm"},
            "publishOn": ["10.0.0.9"],
            "via": {"mirrors": {"nvcr.io": "https://a.test"}, "zzz": 1},
        },
        "clusters": {"a": {"workers": -1}, "b": {"mirrors": {"nvcr.io": False}}, "C": {}},
        "mirrorsFrom": "other",
        "images": {"platforms": ["amd64"]},
        "passwords": {"mcr.microsoft.com": "hunter2", "docker.io": 5},
        "readers": {"adam": "hunter2"},
        "tlsKey": "hunter2",
        "cachess": {},
    }

    found = mistakes(written, plain=["tlsKey"])

    paths = """
    caches.mirrorHost caches.publishOn caches.retention caches.retention.unusedFor
    caches.storage.bucket caches.storge
    caches.upstreams["docker.io"].port caches.upstreams["gcr.io"].username
    caches.upstreams["ghcr.io"].port caches.upstreams["other.test"]
    caches.via.mirrors["nvcr.io"] caches.via.zzz cachess clusters.C clusters.a.workers
    clusters.b.cidr clusters.b.mirrors["nvcr.io"] images.platforms[0] mirrorsFrom
    passwords["docker.io"] passwords["gcr.io"] passwords["mcr.microsoft.com"] readers
    s3Keys.accessKey s3Keys.secretKey tlsKey tlsKey
    """
    assert sorted(path for path, _ in found) == paths.split()
    assert "hunter2" not in str(found)


# Paths


@pytest.mark.parametrize(
    ("parts", "path"),
    [
        (("caches", "offline"), "caches.offline"),
        (("caches", "upstreams", "docker.io", "port"), 'caches.upstreams["docker.io"].port'),
        (("images", "references", 1), "images.references[1]"),
        (("caches", "", 'a"b', "a b", "[x]"), 'caches[""]["a\\"b"]["a b"]["[x]"]'),
    ],
)
def test_paths_have_the_syntax_of_pulumi_config_set(
    parts: tuple[str | int, ...], path: str
) -> None:
    assert in_yaml(parts) == path


# Configuration from Pulumi


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


def test_settings_are_read_from_the_configuration_of_the_stack() -> None:
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

    assert load({"clusters": '{"demo": {}}', "mirrorsFrom": "5"}).mirrors_from == "5"
    assert caches_of(loaded).upstreams["registry.test"].port == 5000
    assert loaded.clusters["demo"].workers == 2
    assert loaded.images
    assert loaded.secrets.passwords == {"registry.test": pydantic.SecretStr("p")}
    assert (pulumi.get_project(), pulumi.get_stack(), pulumi.runtime.is_dry_run()) == before


@pytest.mark.parametrize(
    ("config", "line"),
    [
        ({}, "caches.upstreams: found none"),
        ({"caches": "[" * 100_000}, "caches: found '[[[["),
        ({"caches": "not JSON"}, "caches: found 'not JSON'; allowed: a mapping"),
        ({"caches": CACHES, "passwords": "hunter2 in plain"}, "passwords: found [hidden]; allowed"),
        ({"caches": CACHES, "passwords": '{"a": "hunter2"}'}, "passwords: found in plain text"),
        ({"clusters": '{"demo": {}}', "mirrorsFrom": "a/b"}, "mirrorsFrom: found 'a/b'"),
        ({"caches": CACHES, "cachess": "hunter2"}, "cachess: found an unknown key (did you mean c"),
        ({"caches": CACHES, "zz": "hunter2"}, "zz: found an unknown key; allowed: "),
    ],
)
def test_invalid_configuration_is_a_mistake_and_no_secret_is_shown(
    config: dict[str, str], line: str
) -> None:
    with pytest.raises(SettingsError) as refused:
        load(config)

    assert f"\n  {line}" in str(refused.value)
    assert "hunter2" not in str(refused.value)


# Stack files of the project


# Secrets that each user of the stack sets.
NOT_IN_THE_FILE = {"team": {"s3Keys": S3_KEYS}}


def of_stack(stack: str) -> StackSettings:
    keys = yaml.safe_load((ROOT / f"Pulumi.{stack}.yaml").read_text())["config"]
    written = {key.removeprefix(f"{PROJECT}:"): value for key, value in keys.items()}
    return settings.parse(stack, {**written, **NOT_IN_THE_FILE.get(stack, {})})


@pytest.mark.parametrize("stack", [path.stem.removeprefix("Pulumi.") for path in STACK_FILES])
def test_every_stack_file_is_valid_without_root(stack: str) -> None:
    parsed = of_stack(stack)

    assert parsed.caches or parsed.clusters


def test_the_ci_stack_keeps_nothing_and_has_its_own_ports() -> None:
    ci, *others = map(of_stack, ("ci", "dev", "guide"))

    assert volume_storage_of(ci).on_destroy == "delete"
    taken = {one.port for other in others for one in caches_of(other).upstreams.values()}
    assert not taken & {one.port for one in caches_of(ci).upstreams.values()}


def test_pulumi_yaml_declares_every_configuration_key() -> None:
    project = yaml.safe_load((ROOT / "Pulumi.yaml").read_text())

    assert project["name"] == stack_graph.PROJECT
    keys = {str(field.alias) for field in StackSettings.model_fields.values()}
    assert project["config"].keys() == keys
    texts = {key for key, one in project["config"].items() if one["type"] == "string"}
    assert texts == {*settings.TEXTS}
