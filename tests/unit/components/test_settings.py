import json
import re
from pathlib import Path
from typing import Any

import pulumi
import pydantic
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from components import settings
from components.settings import SettingsError, StackSettings
from components.settings.caches import DEFAULT_IMAGE
from components.settings.mistakes import in_yaml
from talos_registry_cache.registry.catalogue import CATALOGUE
from tests.unit.components import stack_graph
from tests.unit.components.certificates import AUTHORITY
from tests.unit.components.parsed_settings import caches_of, volume_storage_of

ROOT = Path(__file__).resolve().parents[3]
STACK_FILES = sorted(ROOT.glob("Pulumi.*.yaml"))

ONE = {"docker.io": None}


def parse(caches: Any, **rest: Any) -> StackSettings:
    return settings.parse("dev", caches=caches, **rest)


def mistakes(caches: Any, **rest: Any) -> list[str]:
    with pytest.raises(SettingsError) as refused:
        parse(caches, **rest)
    head, *lines = str(refused.value).splitlines()
    assert head == "Pulumi.dev.yaml has mistakes, nothing was changed:"
    assert all(line.startswith("  ") for line in lines)
    return [line.removeprefix("  ") for line in lines]


def mistake(caches: Any, **rest: Any) -> str:
    (only,) = mistakes(caches, **rest)
    return only


def upstream(**written: Any) -> dict[str, Any]:
    """Settings of one upstream that is in no catalogue, right but for what is written."""
    known = {"port": 5000, "remoteUrl": "https://registry.test"}
    return {"upstreams": {"registry.test": known | written}}


def of_stack(path: Path) -> Any:
    return yaml.safe_load(path.read_text())["config"]["caches"]


# What is left out


def test_a_registry_of_the_catalogue_needs_no_more_than_its_name() -> None:
    docker_hub = caches_of(parse({"upstreams": {"docker.io": None}})).upstreams["docker.io"]

    assert docker_hub.remote_url == "https://registry-1.docker.io"
    assert docker_hub.port == 5000
    assert docker_hub.image is None
    assert docker_hub.username is None


def test_what_is_written_wins_over_the_catalogue() -> None:
    written = {"port": 6000, "remoteUrl": "http://mirror.test:8080"}

    docker_hub = caches_of(parse({"upstreams": {"docker.io": written}})).upstreams["docker.io"]

    assert (docker_hub.port, docker_hub.remote_url) == (6000, "http://mirror.test:8080")


def test_defaults_keep_everything_for_ever() -> None:
    parsed = parse({"upstreams": ONE})
    caches = caches_of(parsed)

    assert caches.image == DEFAULT_IMAGE
    assert volume_storage_of(parsed).on_destroy == "keep"
    assert caches.ttl == "never"
    assert caches.mirror_host == "auto"
    assert caches.publish_on is None
    assert (caches.logs.level, caches.logs.max_size, caches.logs.max_files) == ("info", "10m", 3)
    assert caches.memory_limit == "512m"


def test_settings_cannot_be_changed() -> None:
    parsed = parse({"upstreams": ONE})

    with pytest.raises(AttributeError):
        parsed.stack = "other"  # type: ignore[misc]
    for model in (
        caches_of(parsed),
        caches_of(parsed).storage,
        caches_of(parsed).upstreams["docker.io"],
    ):
        name = next(iter(type(model).model_fields))
        with pytest.raises(pydantic.ValidationError, match="frozen"):
            setattr(model, name, None)


def test_a_password_is_not_shown_with_the_settings() -> None:
    parsed = parse(upstream(username="me"), secrets={"passwords": {"registry.test": "hunter2"}})

    assert parsed.secrets.passwords["registry.test"].get_secret_value() == "hunter2"
    assert "hunter2" not in repr(parsed)


# Ports


def test_no_two_upstreams_have_one_port() -> None:
    caches = {"upstreams": {"docker.io": {"port": 5005}, "quay.io": {"port": 5005}}}

    assert mistake(caches) == (
        'caches.upstreams["quay.io"].port: found 5005, which docker.io has; allowed: a free one'
    )


def test_customary_ports_count_when_ports_are_compared() -> None:
    assert "found 5000, which docker.io has" in mistake(
        {"upstreams": {"docker.io": None, "quay.io": {"port": 5000}}}
    )


@pytest.mark.parametrize("port", [-1, 0, 65536, 10**30])
@pytest.mark.parametrize("is_root", [True, False])
def test_a_port_out_of_range_is_refused(port: int, *, is_root: bool) -> None:
    line = mistake(upstream(port=port), is_root=is_root)

    lowest = 1 if is_root else 1024
    assert line.startswith(
        f'caches.upstreams["registry.test"].port: found {port}; allowed: {lowest} to 65535'
    )


@pytest.mark.parametrize("port", [1, 80, 1023])
def test_ports_below_1024_are_for_root(port: int) -> None:
    assert mistake(upstream(port=port)) == (
        f'caches.upstreams["registry.test"].port: found {port}; '
        "allowed: 1024 to 65535; a lower one needs root"
    )

    parsed = parse(upstream(port=port), is_root=True)

    assert caches_of(parsed).upstreams["registry.test"].port == port


@pytest.mark.parametrize("port", [1024, 65535])
def test_the_first_and_the_last_port_are_allowed(port: int) -> None:
    assert caches_of(parse(upstream(port=port))).upstreams["registry.test"].port == port


@pytest.mark.parametrize("port", ["5000", 5000.0, True, None, [5000], {}])
def test_a_port_is_a_whole_number(port: Any) -> None:
    line = mistake(upstream(port=port))

    assert line.startswith(f'caches.upstreams["registry.test"].port: found {port!r}; allowed: ')


# Upstreams


@pytest.mark.parametrize("caches", [None, {}, {"upstreams": {}}, {"upstreams": None}])
def test_a_stack_has_upstreams(caches: Any) -> None:
    assert mistake(caches) == (
        "caches.upstreams: found none; "
        "allowed: one upstream or more, such as docker.io: {port: 5000}"
    )


def test_a_registry_outside_the_catalogue_needs_its_url_and_port() -> None:
    missing_port, missing_url = mistakes({"upstreams": {"registry.test": {}}})

    assert missing_port == (
        'caches.upstreams["registry.test"].port: found none; allowed: one, '
        "since this registry has no customary one"
    )
    assert missing_url == (
        'caches.upstreams["registry.test"].remoteUrl: found none; '
        f"allowed: one, but for the catalogue's: {', '.join(CATALOGUE)}"
    )


@pytest.mark.parametrize(
    "host", ["registry.test", "registry.test:5000", "localhost", "localhost:80", "10.0.0.1:5000"]
)
def test_a_registry_host_is_as_image_references_have_it(host: str) -> None:
    written = {"port": 5000, "remoteUrl": "https://registry.test"}

    assert host in caches_of(parse({"upstreams": {host: written}})).upstreams


@pytest.mark.parametrize(
    "host", ["", "library", "Quay.io", "https://quay.io", "quay.io/a", "a b.c"]
)
def test_what_is_no_registry_host_is_refused(host: str) -> None:
    written = {"port": 5000, "remoteUrl": "https://registry.test"}

    line = mistake({"upstreams": {host: written}})

    assert line.endswith(f": found {host!r}; allowed: a registry host such as quay.io")


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("https://registry.test", "https://registry.test"),
        ("https://registry.test/", "https://registry.test"),
        ("http://registry.test:5000", "http://registry.test:5000"),
        ("http://10.0.0.1:5000/", "http://10.0.0.1:5000"),
    ],
)
def test_a_remote_url_has_a_scheme_and_a_host(written: str, meant: str) -> None:
    parsed = parse(upstream(remoteUrl=written))

    assert caches_of(parsed).upstreams["registry.test"].remote_url == meant


@pytest.mark.parametrize(
    "url",
    [
        "",
        "registry.test",
        "ftp://registry.test",
        "https://",
        "https:///v2",
        "https://registry test",
        "https://registry.test:port",
        "https://registry.test?a=b",
        "https://registry.test#a",
        "https://registry.test\n",
    ],
)
def test_what_is_no_http_url_is_refused(url: str) -> None:
    line = mistake(upstream(remoteUrl=url))

    assert line.startswith(
        f'caches.upstreams["registry.test"].remoteUrl: found {url!r}; '
        "allowed: http:// or https:// with a host"
    )


@pytest.mark.parametrize("url", ["https://registry.test/v2", "https://registry.test//"])
def test_a_remote_url_has_no_path(url: str) -> None:
    line = mistake(upstream(remoteUrl=url))

    assert f"found {url!r}; allowed: " in line
    assert line.endswith("; without a path")


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
def test_credentials_in_a_remote_url_are_refused_and_not_repeated(url: str) -> None:
    line = mistake(upstream(remoteUrl=url))

    assert "hunter2" not in line
    assert "[hidden]@registry.test" in line
    assert line.endswith("; credentials go into username and passwords")


@pytest.mark.parametrize(
    "caches",
    [
        {"upstreams": {"docker.io": "https://me:hunter2@registry.test"}},
        {"upstreams": ["https://me:hunter2@registry.test"]},
        {"upstreams": ONE, "storage": {"volumePrefix": "https://me:hunter2@registry.test"}},
        upstream(remoteUrl=["https://me:hunter2@registry.test"]),
        upstream(image="https://me:hunter2@registry.test/image"),
    ],
)
def test_credentials_in_a_url_are_not_repeated_wherever_it_stands(caches: Any) -> None:
    line = mistake(caches)

    assert "hunter2" not in line
    assert "://[hidden]@registry.test" in line


# Credentials


def test_an_upstream_with_a_user_name_and_a_password_is_allowed() -> None:
    parsed = parse(upstream(username="me"), secrets={"passwords": {"registry.test": "hunter2"}})

    assert caches_of(parsed).upstreams["registry.test"].username == "me"


def test_a_user_name_needs_a_password() -> None:
    assert mistake(upstream(username="me")) == (
        'passwords["registry.test"]: found none, for its username; allowed: one, set with '
        "pulumi config set --secret --path 'passwords[\"registry.test\"]'"
    )


def test_a_password_needs_a_user_name() -> None:
    assert mistake(upstream(), secrets={"passwords": {"registry.test": "hunter2"}}) == (
        'passwords["registry.test"]: found, but caches.upstreams has no username for '
        "registry.test; allowed: beside one"
    )


def test_a_user_name_of_null_is_none() -> None:
    assert caches_of(parse(upstream(username=None))).upstreams["registry.test"].username is None

    line = mistake(upstream(username=None), secrets={"passwords": {"registry.test": "hunter2"}})

    assert "has no username for registry.test" in line


def test_a_password_in_plain_text_is_refused_and_not_repeated() -> None:
    line = mistake(
        upstream(username="me"),
        secrets={"passwords": {"registry.test": "hunter2"}},
        plain=["passwords"],
    )

    assert line == (
        'passwords["registry.test"]: found in plain text; allowed: encrypted, set with '
        "pulumi config set --secret --path 'passwords[\"registry.test\"]'"
    )


@pytest.mark.parametrize("password", ["", None, 5, ["hunter2"], {"a": "hunter2"}])
def test_a_password_is_a_text(password: Any) -> None:
    line = mistake(upstream(username="me"), secrets={"passwords": {"registry.test": password}})

    assert line == 'passwords["registry.test"]: found no text; allowed: a password'


@pytest.mark.parametrize("passwords", ["hunter2", ["hunter2"], 5, True, "", []])
def test_passwords_are_by_registry_host(passwords: Any) -> None:
    line = mistake(upstream(), secrets={"passwords": passwords})

    assert line == "passwords: found no mapping; allowed: registry host to password"


def test_no_passwords_is_fine_however_it_is_written() -> None:
    none: list[Any] = [None, {}]
    for passwords in none:
        assert (
            parse(
                upstream(), secrets={"passwords": passwords}, plain=["passwords"]
            ).secrets.passwords
            == {}
        )


# Kinds


S3 = {"kind": "s3", "bucket": "caches"}
S3_KEYS = {"accessKey": "a", "secretKey": "s"}
PEM = AUTHORITY.certificate
SWARM = {
    "upstreams": ONE,
    "placement": {"kind": "swarm"},
    "storage": S3,
    "mirrorHost": "caches.test",
    "publishOn": ["0.0.0.0"],
}


@pytest.mark.parametrize(
    ("key", "kind", "allowed"),
    [
        ("storage", "nfs", "volume, s3"),
        ("storage", None, "volume, s3"),
        ("storage", 5, "volume, s3"),
        ("placement", "kubernetes", "engine, swarm"),
        ("tls", "acme", "own, given"),
    ],
)
def test_an_unknown_kind_is_refused(key: str, kind: Any, allowed: str) -> None:
    assert mistake({"upstreams": ONE, key: {"kind": kind}}) == (
        f"caches.{key}.kind: found '{kind}'; allowed: {allowed}"
    )


@pytest.mark.parametrize(
    ("key", "of_kind", "known"),
    [
        ("storage", {"kind": "volume"}, "kind, volumePrefix, onDestroy"),
        ("storage", {}, "kind, volumePrefix, onDestroy"),
        ("storage", S3, "kind, bucket, endpoint, region, pathStyle, prefix, ca"),
        ("placement", {"kind": "engine"}, "kind"),
        ("placement", {"kind": "swarm"}, "kind, nodeLabels, replicas, publish"),
        ("tls", {"kind": "own"}, "kind, names"),
        ("tls", {"kind": "given", "certificate": PEM}, "kind, certificate, ca"),
    ],
)
def test_an_unknown_key_is_refused_with_those_of_its_kind(
    key: str, of_kind: dict[str, Any], known: str
) -> None:
    lines = mistakes({"upstreams": ONE, key: {**of_kind, "zzz": 1}})

    assert f"caches.{key}.zzz: found an unknown key; allowed: {known}" in lines


def test_what_does_not_say_its_kind_is_of_the_default_one() -> None:
    caches = caches_of(parse({"upstreams": ONE, "storage": {}, "placement": {}, "tls": {}}))

    assert caches.storage.kind == "volume"
    assert caches.placement.kind == "engine"
    assert caches.tls
    assert caches.tls.kind == "own"


@pytest.mark.parametrize("bucket", ["", "ab", "Caches", "a/b", "-caches", "caches.", "a" * 64])
def test_a_bucket_has_a_name_that_stores_take(bucket: str) -> None:
    caches = {"upstreams": ONE, "storage": {**S3, "bucket": bucket}}

    assert mistake(caches, secrets={"s3Keys": S3_KEYS}) == (
        f"caches.storage.bucket: found {bucket!r}; "
        "allowed: a bucket's name, such as registry-caches"
    )


def test_an_object_store_needs_a_bucket() -> None:
    caches = {"upstreams": ONE, "storage": {"kind": "s3"}}

    assert mistake(caches, secrets={"s3Keys": S3_KEYS}) == (
        "caches.storage.bucket: found none; allowed: the bucket, which has to exist"
    )


@pytest.mark.parametrize(
    ("path", "settings_of"),
    [
        ("storage.ca", lambda ca: {"storage": {**S3, "ca": ca}}),
        ("tls.certificate", lambda ca: {"tls": {"kind": "given", "certificate": ca}}),
        ("tls.ca", lambda ca: {"tls": {"kind": "given", "certificate": PEM, "ca": ca}}),
        ("via.ca", lambda ca: {"via": {"mirrors": {"docker.io": "https://a.test"}, "ca": ca}}),
    ],
)
def test_a_certificate_is_pem_and_what_is_there_instead_is_cut_short(
    path: str, settings_of: Any
) -> None:
    written = {"upstreams": ONE, **settings_of("MII" + "C" * 500)}
    needed = {"storage": {"s3Keys": S3_KEYS}, "tls": {"tlsKey": AUTHORITY.key}, "via": {}}

    line = mistake(written, secrets=needed[path.partition(".")[0]])

    assert line.startswith(f"caches.{path}: found 'MII")
    assert line.endswith("; allowed: certificates in PEM, from -----BEGIN CERTIFICATE----- on")
    assert len(line) < 160


# A Swarm


def test_caches_on_a_swarm_over_an_object_store_are_allowed() -> None:
    caches = caches_of(parse(SWARM, secrets={"s3Keys": S3_KEYS}))

    assert caches.placement.kind == "swarm"


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        (
            {"storage": {}},
            (
                "storage.kind: found volume, which is one node's own, for caches that run on every "
                "node; allowed: s3, or 1 for caches.placement.replicas"
            ),
        ),
        (
            {"storage": {}, "placement": {"kind": "swarm", "replicas": 3}},
            (
                "storage.kind: found volume, which is one node's own, for caches that run on 3 "
                "nodes; allowed: s3, or 1 for caches.placement.replicas"
            ),
        ),
        (
            {"storage": {"onDestroy": "delete"}, "placement": {"kind": "swarm", "replicas": 1}},
            (
                "storage.onDestroy: found delete, but the volumes are other hosts' to delete; "
                "allowed: keep"
            ),
        ),
        (
            {"ttl": "720h"},
            "ttl: found 720h, but several caches over one store would each delete; allowed: never",
        ),
        (
            {"mirrorHost": "auto"},
            (
                "mirrorHost: found auto, but this machine is not the Swarm; "
                "allowed: a name or address of its nodes"
            ),
        ),
        (
            {"publishOn": ["10.0.0.1"]},
            (
                "publishOn: found ['10.0.0.1'], but a Swarm opens ports on all addresses of its "
                "nodes; allowed: [0.0.0.0], to say that this is meant"
            ),
        ),
        (
            {"publishOn": None},
            (
                "publishOn: found none, but a Swarm opens ports on all addresses of its nodes; "
                "allowed: [0.0.0.0], to say that this is meant"
            ),
        ),
    ],
)
def test_what_a_swarm_cannot_do_is_refused(changed: dict[str, Any], line: str) -> None:
    caches = {**SWARM, **changed}
    on_s3 = caches["storage"] == S3

    assert mistake(caches, secrets={"s3Keys": S3_KEYS} if on_s3 else {}) == f"caches.{line}"


def test_a_cache_on_one_node_can_have_a_volume_and_a_ttl() -> None:
    one = {"kind": "swarm", "replicas": 1}

    caches = caches_of(parse({**SWARM, "placement": one, "storage": {}, "ttl": "720h"}))

    assert (caches.storage.kind, caches.ttl) == ("volume", "720h")


@pytest.mark.parametrize("replicas", [0, -1, "2", 1.0, True])
def test_a_number_of_nodes_is_one_or_more(replicas: Any) -> None:
    line = mistake({"upstreams": ONE, "placement": {"kind": "swarm", "replicas": replicas}})

    assert line.startswith(f"caches.placement.replicas: found {replicas!r}; allowed: ")


# By way of a team's caches


def test_a_team_s_caches_are_for_upstreams_that_there_are() -> None:
    via = {"mirrors": {"docker.io": "https://a.test:5000", "quay.io": "https://a.test:5002"}}

    assert mistake({"upstreams": ONE, "via": via}) == (
        'caches.via.mirrors["quay.io"]: found, but caches.upstreams has no quay.io; '
        "allowed: docker.io"
    )


def test_an_upstream_that_is_not_asked_itself_has_no_user_name() -> None:
    caches = {**upstream(username="me"), "via": {"mirrors": {"registry.test": "https://a.test"}}}

    assert mistake(caches, secrets={"passwords": {"registry.test": "hunter2"}}) == (
        'caches.upstreams["registry.test"].username: found beside caches.via, which is asked '
        "instead; allowed: one of both"
    )


def test_an_upstream_that_is_asked_itself_may_have_one_beside_a_team_s_caches() -> None:
    caches = upstream(username="me")
    caches["upstreams"]["quay.io"] = None
    via = {"mirrors": {"quay.io": "https://a.test"}}

    parsed = parse({**caches, "via": via}, secrets={"passwords": {"registry.test": "hunter2"}})

    assert caches_of(parsed).upstreams["registry.test"].username == "me"


def test_a_user_name_at_a_team_s_caches_needs_a_password_and_only_then_there_is_one() -> None:
    via = {"mirrors": {"docker.io": "https://a.test"}}
    named = {"upstreams": ONE, "via": {**via, "username": "me"}}
    password = {"passwords": {"via": "hunter2"}}

    assert parse(named, secrets=password).secrets.passwords["via"].get_secret_value() == "hunter2"
    assert mistake(named) == (
        "passwords.via: found none, for its username; allowed: one, set with "
        "pulumi config set --secret --path 'passwords.via'"
    )
    assert mistake({"upstreams": ONE, "via": via}, secrets=password) == (
        "passwords.via: found, but caches.via has no username; allowed: beside one"
    )


def test_credentials_in_a_mirror_s_url_are_refused_and_not_repeated() -> None:
    via = {"mirrors": {"docker.io": "https://me:hunter2@a.test"}}

    line = mistake({"upstreams": ONE, "via": via})

    assert line.startswith("caches.via.mirrors[\"docker.io\"]: found 'https://[hidden]@a.test'")


# The other secrets


OVER_S3 = {"upstreams": ONE, "storage": S3}
CLOSED = {"upstreams": ONE, "tls": {}}
GIVEN = {"upstreams": ONE, "tls": {"kind": "given", "certificate": PEM}}


@pytest.mark.parametrize(
    ("caches", "secrets", "line"),
    [
        (
            OVER_S3,
            {"s3Keys": {"accessKey": "a"}},
            (
                "s3Keys.secretKey: found none, for caches.storage; allowed: one, set with "
                "pulumi config set --secret --path 's3Keys.secretKey'"
            ),
        ),
        (
            OVER_S3,
            {"s3Keys": {**S3_KEYS, "token": "t"}},
            "s3Keys.token: found, but it is no key of a store; allowed: accessKey and secretKey",
        ),
        (OVER_S3, {"s3Keys": "a"}, "s3Keys: found no mapping; allowed: accessKey and secretKey"),
        (
            OVER_S3,
            {"s3Keys": {"accessKey": "a", "secretKey": 5}},
            "s3Keys.secretKey: found no text; allowed: a key",
        ),
        *(
            (
                OVER_S3,
                {"s3Keys": {"accessKey": "a", "secretKey": key}},
                "s3Keys.secretKey: found another text; allowed: a key, of ASCII without spaces",
            )
            for key in ("a b", "a\nrole_arn = b", "ä")
        ),
        (
            CLOSED,
            {"s3Keys": {"accessKey": "a"}},
            "s3Keys.accessKey: found, but caches.storage is no s3; allowed: beside one",
        ),
        (
            GIVEN,
            {},
            (
                "tlsKey: found none, for caches.tls.certificate; allowed: one, set with "
                "pulumi config set --secret tlsKey < tlsKey.pem"
            ),
        ),
        (
            CLOSED,
            {"tlsKey": "key"},
            "tlsKey: found, but caches.tls has no certificate; allowed: beside one",
        ),
        (GIVEN, {"tlsKey": {"a": 1}}, "tlsKey: found no text; allowed: a key"),
        (
            {"upstreams": ONE},
            {"readers": {"adam": "s3cret"}},
            (
                "readers: found without caches.tls; allowed: with it, since passwords would go in "
                "the clear"
            ),
        ),
        (
            CLOSED,
            {"readers": ["adam"]},
            "readers: found no mapping; allowed: user name to password",
        ),
        (CLOSED, {"readers": {"adam": ""}}, "readers.adam: found no text; allowed: a password"),
        *(
            (
                CLOSED,
                {"readers": {"adam": password}},
                "readers.adam: found another text; allowed: 1 to 72 bytes, of printable characters",
            )
            for password in ("x" * 73, "two\nlines")
        ),
        *(
            (
                CLOSED,
                {"readers": {name: "s3cret"}},
                (
                    f"{in_yaml(('readers', name))}: found no user name; allowed: letters, digits, "
                    "dots, dashes, underscores and @, from a letter or digit on"
                ),
            )
            for name in ("", "a:b", "a b", "-a", "ä")
        ),
    ],
)
def test_what_is_wrong_with_secrets_is_told_with_what_to_do(
    caches: Any, secrets: dict[str, Any], line: str
) -> None:
    assert mistake(caches, secrets=secrets) == line


@pytest.mark.parametrize(
    ("caches", "secrets", "paths"),
    [
        (OVER_S3, {"s3Keys": S3_KEYS}, ["s3Keys.accessKey", "s3Keys.secretKey"]),
        (GIVEN, {"tlsKey": AUTHORITY.key}, ["tlsKey"]),
        (CLOSED, {"readers": {"adam": "hunter2"}}, ["readers.adam"]),
    ],
)
def test_every_secret_has_to_be_encrypted(
    caches: Any, secrets: dict[str, Any], paths: list[str]
) -> None:
    parse(caches, secrets=secrets)

    lines = mistakes(caches, secrets=secrets, plain=[*secrets])

    assert [line.partition(": ")[0] for line in lines] == paths
    assert all("found in plain text; allowed: encrypted" in line for line in lines)
    assert "hunter2" not in "".join(lines)


def test_secrets_are_not_shown_with_the_settings() -> None:
    caches = {**OVER_S3, **GIVEN}
    secrets = {
        "s3Keys": {"accessKey": "hunter2a", "secretKey": "hunter2s"},
        "tlsKey": AUTHORITY.key,
        "readers": {"adam": "hunter2r"},
    }

    parsed = parse(caches, secrets=secrets)

    assert parsed.secrets.s3_keys
    assert parsed.secrets.s3_keys.secret.get_secret_value() == "hunter2s"
    assert parsed.secrets.tls_key
    assert parsed.secrets.readers["adam"].get_secret_value() == "hunter2r"
    assert "hunter2" not in repr(parsed)
    assert AUTHORITY.key not in repr(parsed)


# The other settings


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
def test_what_fits_is_kept_as_written(key: str, value: Any) -> None:
    dumped = caches_of(parse({"upstreams": ONE, key: value})).model_dump(mode="json", by_alias=True)

    assert dumped[key] == value


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("ttl", "", "never, or a duration such as 720h"),
        ("ttl", "5 days", "never, or a duration such as 720h"),
        ("ttl", "7d", "never, or a duration such as 720h"),
        ("ttl", "-1h", "never, or a duration such as 720h"),
        ("ttl", "h", "never, or a duration such as 720h"),
        ("ttl", "٣h", "never, or a duration such as 720h"),
        ("mirrorHost", "", "auto, an IPv4 address, or a host name"),
        ("mirrorHost", "10.5.0.256", "auto, an IPv4 address, or a host name"),
        ("mirrorHost", "10.5.0.1:5000", "auto, an IPv4 address, or a host name"),
        ("mirrorHost", "http://10.5.0.1", "auto, an IPv4 address, or a host name"),
        ("mirrorHost", "fd00::1", "auto, an IPv4 address, or a host name"),
        ("mirrorHost", "my host", "auto, an IPv4 address, or a host name"),
        ("memoryLimit", "512", "a number with k, m or g, such as 10m"),
        ("memoryLimit", "0m", "a number with k, m or g, such as 10m"),
        ("memoryLimit", "1٢m", "a number with k, m or g, such as 10m"),
        ("image", "", "an image reference such as registry:3.1.2"),
        ("image", "registry 3", "an image reference such as registry:3.1.2"),
        ("image", "registry@sha256:0", "an image reference such as registry:3.1.2"),
        ("image", "registry", "one with a tag that does not move, or a digest"),
        ("image", "a.b:5000/registry:latest", "one with a tag that does not move, or a digest"),
        ("namePrefix", "", "letters, digits, dots, dashes and underscores"),
        ("namePrefix", "-registry", "letters, digits, dots, dashes and underscores"),
        ("namePrefix", "a/b", "letters, digits, dots, dashes and underscores"),
        ("publishOn", [], "one or more"),
        ("publishOn", "127.0.0.1", "a list"),
    ],
)
def test_what_does_not_fit_is_refused(key: str, value: Any, allowed: str) -> None:
    line = mistake({"upstreams": ONE, key: value})

    assert line.startswith(f"caches.{key}: found {value!r}; allowed: {allowed}")


@pytest.mark.parametrize("address", ["localhost", "fd00::1", "10.5.0.1/16", "", 1, True, None])
def test_ports_are_published_on_ipv4_addresses(address: Any) -> None:
    line = mistake({"upstreams": ONE, "publishOn": ["127.0.0.1", address]})

    assert line == f"caches.publishOn[1]: found {address!r}; allowed: an IPv4 address"


@pytest.mark.parametrize(
    ("logs", "line"),
    [
        ({"level": "loud"}, "level: found 'loud'; allowed: 'error', 'warn', 'info' or 'debug'"),
        ({"maxSize": "big"}, "maxSize: found 'big'; allowed: a number with k, m or g, such as 10m"),
        ({"maxFiles": 0}, "maxFiles: found 0; allowed: greater than or equal to 1"),
        ({"maxFiles": 101}, "maxFiles: found 101; allowed: less than or equal to 100"),
    ],
)
def test_logs_are_bounded(logs: dict[str, Any], line: str) -> None:
    assert mistake({"upstreams": ONE, "logs": logs}) == f"caches.logs.{line}"


def test_storage_is_kept_or_deleted() -> None:
    for choice in ("keep", "delete"):
        caches = {"upstreams": ONE, "storage": {"onDestroy": choice}}
        assert volume_storage_of(parse(caches)).on_destroy == choice

    assert mistake({"upstreams": ONE, "storage": {"onDestroy": "maybe"}}) == (
        "caches.storage.onDestroy: found 'maybe'; allowed: 'keep' or 'delete'"
    )


# Keys


@pytest.mark.parametrize(
    ("caches", "path", "meant", "allowed"),
    [
        ({"upstreams": ONE, "mirorHost": "auto"}, "caches.mirorHost", "mirrorHost", "upstreams, "),
        ({"upstreams": ONE, "name_prefix": "a"}, "caches.name_prefix", "namePrefix", "upstreams, "),
        (
            {"upstreams": ONE, "storage": {"onDestory": "keep"}},
            "caches.storage.onDestory",
            "onDestroy",
            "kind, volumePrefix, onDestroy",
        ),
        (
            {"upstreams": ONE, "logs": {"maxsize": "10m"}},
            "caches.logs.maxsize",
            "maxSize",
            "level, maxSize, maxFiles",
        ),
        (
            upstream(remoteURL="https://quay.io"),
            'caches.upstreams["registry.test"].remoteURL',
            "remoteUrl",
            "port, remoteUrl, image, username",
        ),
    ],
)
def test_an_unknown_key_is_refused_with_the_one_that_was_meant(
    caches: Any, path: str, meant: str, allowed: str
) -> None:
    line = mistake(caches)

    assert line.startswith(
        f"{path}: found an unknown key (did you mean {meant}?); allowed: {allowed}"
    )


def test_a_key_that_is_like_no_other_is_refused_without_a_guess() -> None:
    line = mistake(upstream(zzz=5))

    assert line == (
        'caches.upstreams["registry.test"].zzz: found an unknown key; '
        "allowed: port, remoteUrl, image, username"
    )


def test_a_password_among_the_upstreams_is_refused_and_not_repeated() -> None:
    line = mistake(upstream(password="hunter2"))  # noqa: S106

    assert line.startswith('caches.upstreams["registry.test"].password: found an unknown key')
    assert "hunter2" not in line


NOT_MAPPINGS = [["a"], "text", 5, 1.5, True]


@pytest.mark.parametrize("value", NOT_MAPPINGS)
@pytest.mark.parametrize(
    ("path", "within"),
    [
        ("caches", lambda value: value),
        ("caches.upstreams", lambda value: {"upstreams": value}),
        ('caches.upstreams["docker.io"]', lambda value: {"upstreams": {"docker.io": value}}),
        ("caches.storage", lambda value: {"upstreams": ONE, "storage": value}),
        ("caches.logs", lambda value: {"upstreams": ONE, "logs": value}),
    ],
)
def test_what_is_no_mapping_is_refused_where_one_belongs(
    value: Any, path: str, within: Any
) -> None:
    assert mistake(within(value)) == f"{path}: found {value!r}; allowed: a mapping"


# All at once


def test_all_mistakes_are_reported_at_once() -> None:
    caches = {
        "upstreams": {
            "docker.io": {"port": 80, "username": "me"},
            "quay.io": {"port": 5004, "remoteUrl": "https://me:hunter2@quay.io"},
            "ghcr.io": None,
            "registry.test": {"port": 5000},
        },
        "ttl": "5 days",
        "mirrorHost": "not an address",
        "storge": {},
    }

    lines = mistakes(caches, secrets={"passwords": {"gcr.io": "hunter2"}})

    assert sorted(line.partition(":")[0] for line in lines) == [
        "caches.mirrorHost",
        "caches.storge",
        "caches.ttl",
        'caches.upstreams["docker.io"].port',
        'caches.upstreams["ghcr.io"].port',
        'caches.upstreams["quay.io"].remoteUrl',
        'caches.upstreams["registry.test"].remoteUrl',
        'passwords["docker.io"]',
        'passwords["gcr.io"]',
    ]
    assert "hunter2" not in "".join(lines)


def test_the_message_names_the_stack_file() -> None:
    with pytest.raises(SettingsError, match=r"^Pulumi\.my-stack\.yaml has mistakes"):
        settings.parse("my-stack", caches=None)


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


# A backslash before the closing quote cannot be written in Pulumi's syntax, nor can a line end be
# on one line.
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


# Whatever is written

KEYS = st.sampled_from(
    [
        "upstreams", "storage", "logs", "ttl", "image", "publishOn", "port", "remoteUrl",
        "username", "onDestroy", "maxFiles", "level", "docker.io", "quay.io", "registry.test",
        "kind", "bucket", "replicas", "nodeLabels", "names", "certificate", "ca", "mirrors",
    ]
)  # fmt: skip
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(max_size=20),
    st.sampled_from(["never", "keep", "auto", "10m", "https://quay.io", "127.0.0.1", 5000, 5001]),
    st.sampled_from(["volume", "s3", "engine", "swarm", "own", "given", "caches"]),
)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS | st.text(), inner),
    max_leaves=15,
)
ALMOST_RIGHT = st.fixed_dictionaries(
    {},
    optional={
        "upstreams": st.dictionaries(
            KEYS,
            st.fixed_dictionaries(
                {},
                optional={
                    "port": st.integers(1, 70000) | ANYTHING,
                    "remoteUrl": st.just("https://quay.io") | ANYTHING,
                    "username": ANYTHING,
                    "image": ANYTHING,
                },
            )
            | ANYTHING,
        ),
        "storage": ANYTHING,
        "logs": ANYTHING,
        "ttl": ANYTHING,
        "publishOn": ANYTHING,
        "placement": ANYTHING,
        "tls": ANYTHING,
        "via": ANYTHING,
        "surprise": ANYTHING,
    },
)


@given(
    caches=ALMOST_RIGHT | ANYTHING,
    passwords=st.dictionaries(KEYS, st.text()) | ANYTHING,
    plain=st.lists(st.just("passwords"), max_size=1),
    is_root=st.booleans(),
)
def test_whatever_is_written_there_are_settings_or_a_settings_error(
    caches: Any, passwords: Any, plain: list[str], *, is_root: bool
) -> None:
    try:
        parsed = parse(
            caches,
            secrets={"passwords": passwords},
            plain=plain,
            is_root=is_root,
        )
    except SettingsError as error:
        refused = str(error)
    else:
        upstreams = caches_of(parsed).upstreams
        assert upstreams
        with_user = {host for host, one in upstreams.items() if one.username is not None}
        assert parsed.secrets.passwords.keys() == with_user
        return
    assert re.search(r"^  (caches|passwords)\b.*: ", refused, re.MULTILINE)


ADDRESSES = st.ip_addresses(network="10.0.0.0/8").map(str)
USERNAMES = st.text("aB9 .@$ä", min_size=1)


@st.composite
def right_settings(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, str]]:
    hosts = draw(
        st.lists(
            st.sampled_from([*CATALOGUE, "registry.test", "localhost:5000", "10.0.0.1:80"]),
            min_size=1,
            unique=True,
        )
    )
    ports = draw(
        st.lists(st.integers(1024, 65535), min_size=len(hosts), max_size=len(hosts), unique=True)
    )
    upstreams: dict[str, dict[str, Any]] = {}
    passwords: dict[str, str] = {}
    for host, port in zip(hosts, ports, strict=True):
        upstreams[host] = {"port": port}
        if host not in CATALOGUE or draw(st.booleans()):
            upstreams[host]["remoteUrl"] = draw(st.sampled_from(["https://a.test", "https://b:80"]))
        if draw(st.booleans()):
            upstreams[host]["image"] = "registry:3.0.0"
        if draw(st.booleans()):
            upstreams[host]["username"] = draw(USERNAMES)
            passwords[host] = draw(st.text(min_size=1))
    others = st.fixed_dictionaries(
        {},
        optional={
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
        },
    )
    return {"upstreams": upstreams} | draw(others), passwords


@given(right_settings())
def test_every_right_combination_parses_and_survives_being_written_out(
    written: tuple[dict[str, Any], dict[str, str]],
) -> None:
    caches, passwords = written

    parsed = parse(caches, secrets={"passwords": passwords})

    dumped = caches_of(parsed).model_dump(mode="json", by_alias=True)
    again = parse(json.loads(json.dumps(dumped)), secrets={"passwords": passwords})
    assert again == parsed
    for key, value in caches.items():
        if not isinstance(value, dict):
            assert dumped[key] == value


# What Pulumi hands over


def load(config: dict[str, str], secret_keys: tuple[str, ...] = ()) -> StackSettings:
    loaded: list[StackSettings] = []
    stack_graph.run(
        lambda: loaded.append(settings.load()),
        config={f"talos-registry-cache:{key}": value for key, value in config.items()},
        secret_keys=tuple(f"talos-registry-cache:{key}" for key in secret_keys),
    )
    return loaded[0]


def test_the_settings_are_those_of_the_running_stack() -> None:
    loaded = load({"caches": '{"upstreams": {"docker.io": {"port": 5999}}}'})

    assert loaded.stack == "dev"
    assert caches_of(loaded).upstreams["docker.io"].port == 5999


def test_encrypted_passwords_are_read_and_others_refused() -> None:
    config = {"caches": json.dumps(upstream(username="me")), "passwords": '{"registry.test": "p"}'}

    assert load(config, secret_keys=("passwords",)).secrets.passwords["registry.test"] == (
        pydantic.SecretStr("p")
    )
    with pytest.raises(SettingsError, match="found in plain text"):
        load(config)


@pytest.mark.parametrize(("user", "allowed"), [(0, True), (1000, False)])
def test_root_is_who_runs_pulumi_as_user_0(
    monkeypatch: pytest.MonkeyPatch, user: int, *, allowed: bool
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: user)
    config = {"caches": json.dumps(upstream(port=80))}

    if allowed:
        assert caches_of(load(config)).upstreams["registry.test"].port == 80
    else:
        with pytest.raises(SettingsError, match="a lower one needs root"):
            load(config)


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("cachess", " (did you mean caches?)"),
        ("password", " (did you mean passwords?)"),
        ("zz", ""),
    ],
)
def test_a_key_that_there_is_not_is_refused_without_its_value(key: str, meant: str) -> None:
    with pytest.raises(SettingsError) as refused:
        load({"caches": json.dumps(upstream()), key: "hunter2"})

    (line,) = str(refused.value).splitlines()[1:]
    assert line == (
        f"  {key}: found an unknown key{meant}; allowed: "
        "caches, clusters, images, mirrorsFrom, passwords, readers, s3Keys, tlsKey"
    )


def test_keys_of_others_are_left_to_them() -> None:
    loaded: list[StackSettings] = []
    config = {"talos-registry-cache:caches": json.dumps(upstream()), "docker:host": "unix:///a"}
    stack_graph.run(lambda: loaded.append(settings.load()), config=config)

    assert loaded


def test_a_value_that_is_nested_too_deeply_is_a_mistake_like_others() -> None:
    with pytest.raises(SettingsError, match=r"caches: found '\[\[\[.*; allowed: a mapping"):
        load({"caches": "[" * 100_000})


def test_a_stack_without_any_settings_is_told_so() -> None:
    with pytest.raises(SettingsError, match=r"caches\.upstreams: found none"):
        load({})


def test_a_text_where_a_mapping_belongs_is_a_mistake_like_others_and_no_secret_is_shown() -> None:
    config = {"caches": "not JSON", "passwords": "hunter2 in plain"}

    with pytest.raises(SettingsError) as refused:
        load(config)

    assert "caches: found 'not JSON'; allowed: a mapping" in str(refused.value)
    assert "passwords: found no mapping" in str(refused.value)
    assert "hunter2" not in str(refused.value)


# The stacks of the project


# The secrets that each person who brings the stack up sets.
NOT_IN_THE_FILE = {"Pulumi.team": {"s3Keys": {"accessKey": "a", "secretKey": "s"}}}


@pytest.mark.parametrize("path", STACK_FILES, ids=lambda path: path.stem)
def test_every_stack_file_is_right_for_a_user_who_is_not_root(path: Path) -> None:
    keys = yaml.safe_load(path.read_text())["config"]
    written = {key.rpartition(":")[2]: value for key, value in keys.items()}

    parsed = settings.parse(
        path.stem.removeprefix("Pulumi."),
        caches=written.pop("caches", None),
        clusters=written.pop("clusters", None),
        mirrors_from=written.pop("mirrorsFrom", None),
        secrets=NOT_IN_THE_FILE.get(path.stem, {}),
    )

    assert parsed.caches or parsed.clusters
    assert written == {}


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
    parsed = parse(of_stack(ROOT / f"Pulumi.{stack}.yaml"))

    assert {host: one.port for host, one in caches_of(parsed).upstreams.items()} == ports
    assert volume_storage_of(parsed).on_destroy == "keep"


def test_the_guide_runs_quay_io_on_an_image_of_its_own() -> None:
    caches = caches_of(parse(of_stack(ROOT / "Pulumi.guide.yaml")))

    with_own = {host for host, one in caches.upstreams.items() if one.image is not None}
    assert with_own == {"quay.io"}
    assert caches.upstreams["quay.io"].image != caches.image


def test_the_ci_stack_keeps_nothing_and_shares_no_port_with_the_others() -> None:
    ci, *others = (
        parse(of_stack(ROOT / f"Pulumi.{stack}.yaml")) for stack in ("ci", "dev", "guide")
    )

    assert volume_storage_of(ci).on_destroy == "delete"
    taken = {one.port for other in others for one in caches_of(other).upstreams.values()}
    assert not taken & {one.port for one in caches_of(ci).upstreams.values()}


def test_the_project_declares_the_keys_that_are_read() -> None:
    project = yaml.safe_load((ROOT / "Pulumi.yaml").read_text())

    assert project["name"] == stack_graph.PROJECT
    assert {key: one["type"] for key, one in project["config"].items()} == {
        "caches": "object",
        "clusters": "object",
        "images": "object",
        "mirrorsFrom": "string",
        "passwords": "object",
        "readers": "object",
        "s3Keys": "object",
        "tlsKey": "string",
    }


def test_a_run_leaves_the_settings_of_pulumi_as_they_were() -> None:
    before = pulumi.get_project(), pulumi.get_stack(), pulumi.runtime.is_dry_run()

    load({"caches": json.dumps(upstream())})

    assert (pulumi.get_project(), pulumi.get_stack(), pulumi.runtime.is_dry_run()) == before
    assert before[0] != stack_graph.PROJECT
