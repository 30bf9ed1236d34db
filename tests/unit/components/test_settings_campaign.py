"""Invalid values of every kind for every field of the schema.

Each case is a valid stack file with one value replaced. It must be refused with a path, what was
found and what is allowed, or be valid by an independent rule and in an editor. The fields come from
the JSON schema, so that new settings are covered.
"""

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from ipaddress import IPv4Network
from typing import Any, NamedTuple

import jsonschema
import pytest
import yaml
from hypothesis import HealthCheck, given
from hypothesis import settings as campaign
from hypothesis import strategies as st
from jsonschema.protocols import Validator

from components.settings import reference, secrets
from components.settings.mistakes import in_yaml
from components.settings.values import HIGHEST_PORT, mebibytes, seconds
from talos_registry_cache.registry import platforms
from talos_registry_cache.registry import reference as image_reference
from tests.unit.components.certificates import AUTHORITY
from tests.unit.components.parsed_settings import mistakes, replaced

Path = tuple[str | int, ...]

HOST = "registry.test"
OTHER_HOST = "other.test"
INSIDE = "inside.test"
LIMIT_OF_TEXT = 3000
A_TYPE = "a text|a mapping|a list|a whole number|a number|true or false"


@pytest.fixture(autouse=True, scope="module")
def _is_not_root() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("os.geteuid", lambda: 1000)
        yield


UPSTREAMS = {
    HOST: {"port": 5000, "remoteUrl": "https://registry.test", "image": "registry:3.1.2"},
    OTHER_HOST: {"port": 5001, "remoteUrl": "https://other.test"},
}
VIA = {"mirrors": {OTHER_HOST: "https://team.test:5001"}}
CLUSTER = {
    "mirrors": {HOST: False},
    "disks": ["virtio:10GiB"],
    "configPatches": [{}],
    "configPatchesControlplanes": [{}],
    "configPatchesWorkers": [{}],
    "extraArguments": ["--debug"],
}
BASES: Mapping[str, Mapping[str, Any]] = {
    "engine": {
        "caches": {
            "upstreams": UPSTREAMS,
            "storage": {"kind": "volume"},
            "placement": {"kind": "engine"},
            "tls": {"kind": "own", "names": ["caches.test"]},
            "via": {**VIA, "ca": AUTHORITY.certificate},
            "logs": {},
            "front": {},
            "wildcard": {},
            "local": {"port": 5011},
            "proxy": {"kind": "given", "noProxy": ["corp.test"]},
            "extraHosts": {INSIDE: "10.0.0.8"},
        },
        "clusters": {"demo": CLUSTER},
        "images": {"references": ["registry.test/a:1"], "talos": {}, "platforms": ["linux/amd64"]},
    },
    "swarm": {
        "caches": {
            "upstreams": UPSTREAMS,
            "storage": {"kind": "s3", "bucket": "caches"},
            "placement": {"kind": "swarm", "nodeLabels": {"cache": "true"}},
            "tls": {"kind": "given", "certificate": AUTHORITY.certificate},
            "via": VIA,
            "mirrorHost": "caches.test",
            "publishOn": ["0.0.0.0"],
        },
        "s3Keys": {"accessKey": "a", "secretKey": "s"},
        "tlsKey": AUTHORITY.key,
    },
    "elsewhere": {"clusters": {"demo": {}}, "mirrorsFrom": "dev"},
}


# Fields


class Field(NamedTuple):
    """A path in a stack file and the schema of its value."""

    base: str
    path: Path
    schema: Mapping[str, Any]


SCHEMA = reference.schema()


def fields_of(base: str) -> Iterator[Field]:
    """The fields of a stack of this kind, from the schema."""
    keys = SCHEMA["properties"]["config"]["properties"]
    for key, schema in keys.items():
        name = key.partition(":")[2]
        if name in BASES[base] and name not in secrets.KEYS:
            yield from _within(base, (name,), schema, BASES[base][name])


def _within(base: str, path: Path, schema: Mapping[str, Any], written: Any) -> Iterator[Field]:
    yield Field(base, path, schema)
    for one in _alternatives(schema, written):
        for key, inner in one.get("properties", {}).items():
            below = written.get(key) if isinstance(written, Mapping) else None
            yield from _within(base, (*path, key), inner, below)
        values = [*one.get("patternProperties", {}).values()]
        if values and isinstance(written, Mapping):
            for key in written:
                yield from _within(base, (*path, key), values[0], written[key])
        if "items" in one and isinstance(written, list):
            yield from _within(base, (*path, 0), one["items"], written[0])


def _alternatives(schema: Mapping[str, Any], written: Any) -> Iterator[Mapping[str, Any]]:
    """The schemas that apply to a value, of its `kind` where it has one."""
    if "$ref" in schema:
        schema = SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]]
    several = [*schema.get("anyOf", ()), *schema.get("oneOf", ())]
    if not several:
        kind = schema.get("properties", {}).get("kind", {}).get("const")
        if kind is None or (isinstance(written, Mapping) and written.get("kind", kind) == kind):
            yield schema
    for one in several:
        yield from _alternatives(one, written)


# A field of several stacks is tried in the first.
FIELDS = list(
    {
        (found.path, json.dumps(found.schema)): found
        for base in reversed([*BASES])
        for found in fields_of(base)
    }.values()
)


# Values

TYPES: Sequence[Any] = [
    None, True, False, 0, -1, 1, 7, 10**9, 10**20, 10**400, -(10**30), 0.5, 1.0, -0.5, 1e300,
    math.inf, -math.inf, math.nan, [], [None], [[]], [1], ["a"], {}, {"a": 1}, {"": None},
    {"kind": "other"}, {"a\nb": 1}, [{"password": "hunter2"}], {"password": "hunter2"},
]  # fmt: skip
WORDS = """
%00 %2e%2e $(id) `id` ' " {found} {0} %s ~ - --help . .. ... / // ../.. ../../etc/passwd /dev/zero
* null true yes NaN inf 1e3 0x10 1_000 0m 1k 5m -1m 1.5m 1 1b 1M 1mb 1025g 0s 0ms 9999999999999h 1d
-1h h 1.h .5h 1h1 1e3h 500ms Never https:// https://.. https://. https://a..b https://-a.test
https://a-.test https://registry.test:0 https://registry.test:65536 https://registry.test:99999
https://registry.test: https://registry.test:-1 https://1.2.3 https://1.2.3.4.5 https://256.1.1.1
https://[::1] https://127.0.0.1:5000 http://localhost:5000 https://0.0.0.0 https://224.0.0.1
https://a_b.test https://a.test/v2 https://a.test?a=1 https://a.test#a https://me:hunter2@a.test
ftp://a.test HTTPS://a.test //a.test https:a.test file:///etc/passwd javascript:alert(1) a..b
.a.test a.test. -a.test a-.test a.test:0 a.test:65536 a.test:99999 a.test: a.test:b 300.1.1.1 1.2.3
1.2.3.4.5 01.2.3.4 0.0.0.0 255.255.255.255 224.0.0.1 240.0.0.1 0.1.2.3 ::1 fe80::1%1 [::1]:5000
A.test a_b.test xn-- localhost:70000 10.5.0.1/24 10.5.0.0/33 10.5.0.0/-1 10.5.0.0/30
10.5.0.0/255.255.255.0 10.5.0.0/ 127.0.0.0/8 224.0.0.0/4 224.0.0.0/24 0.0.0.0/0 0.0.0.0/8
240.0.0.0/24 169.254.0.0/16 fd00::/64 10.5/16 10.5.0.0/024 a//b::c : a: a@ a@sha256:0 a:b:c /a a/ A
a:-b a..b/c a___b a.test:99999/b https://a.test/b ab a..b a.-b a-.b -ab ab- a_b ABC 10.0.0.9 a/b
a:b a;b _a linux linux/ linux/nonsense nonsense/amd64 linux/amd64/ linux/arm/nonsense Linux/amd64
v1 1.11 vv1.11.5 v1.11.5- v999999.1.1 v1.11.x latest @file.yaml text {
"""
TEXTS: Sequence[str] = [
    *WORDS.split(),
    "", " ", "\t", "a b", " a", "a ", "\0", "a\0b", "a\n", "\n", "a\nb", "\r", "\x1b[31m", "\x7f",
    "\u200b", "\u202e", "\u2028", "ä", "名", "١٢", "\ud800", "\\", "a" * 64, "a" * 300, "a" * 5000,
    "9" * 5000, "." * 300, "a." * 150, "ä" * 5000, "[" * 5000, "{" * 5000, "1 m", "\u0661m",
    f"{'9' * 30}g", "1h ", "1µs", f"{'9' * 400}h", "never ", f"https://{'a' * 300}.test",
    f"https://{'a' * 64}.test", f"https://{'a.' * 150}test", "https://a.test\n", f"{'a' * 64}.test",
    f"{'a.' * 150}test", "a b", f"a:{'b' * 129}", f"{'a/' * 200}b", "-----BEGIN CERTIFICATE-----\n",
    "-----BEGIN CERTIFICATE-----\nMIID\n-----END CERTIFICATE-----\n",
    "-----BEGIN CERTIFICATE-----\nnot base64\n-----END CERTIFICATE-----\n", AUTHORITY.key,
    AUTHORITY.certificate + AUTHORITY.key, AUTHORITY.certificate.replace("\n", ""),
    AUTHORITY.certificate[:200], AUTHORITY.certificate.replace("MII", "AAA"), "v1.11.5 ", "a: b: c",
    "- just\n- words\n", "a: [", "!!python/object:os.system {}",
]  # fmt: skip
VALUES = [*TYPES, *TEXTS]


# Valid values


def _is_dns_name(text: str) -> bool:
    labels = text.split(".")
    return len(text) <= 253 and all(
        re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", label, re.IGNORECASE)
        for label in labels
    )


def _is_url(text: str) -> bool:
    url = re.fullmatch(r"https?://([^/:]+)(?::(\d+))?/?", text, re.ASCII)
    return (
        bool(
            url and _is_dns_name(url[1]) and not url[1].startswith("127.") and url[1] != "localhost"
        )
        and 0 < int((url and url[2]) or 80) <= HIGHEST_PORT
    )


def _is_image(text: str) -> bool:
    image = image_reference.parse(text)
    return image.digest is not None or image.tag != "latest"


def _is_patch(value: Any) -> bool:
    documents = [value] if isinstance(value, dict) else yaml.safe_load_all(value)
    return all(isinstance(one, dict | list) for one in documents)


def _is_network(text: str) -> bool:
    network = IPv4Network(text)
    return network.prefixlen <= 29 and not (
        network.is_loopback or network.is_multicast or network.is_link_local or network.is_reserved
    )


def _is_argument(text: str) -> bool:
    return bool(text) and not re.search(r"[\0-\x08\x0b-\x1f\x7f\ud800]", text)


def _matches(pattern: str) -> Callable[[str], bool]:
    return lambda text: re.fullmatch(pattern, text, re.ASCII) is not None


def _between(lowest: float, highest: float, unit: Callable[[Any], float]) -> Callable[[Any], bool]:
    return lambda value: lowest <= unit(value) <= highest


# The rule for each key (for items, the key of their list), which has one meaning in a stack file.
# Types are checked against the schema.
VALID: Mapping[str, Callable[[Any], bool]] = {
    key: rule
    for keys, rule in {
        "port": _between(1024, HIGHEST_PORT, int),
        "remoteUrl endpoint http https": _is_url,
        "noProxy": _matches(r"[\w.*:/\[\]-]{1,253}"),
        INSIDE: lambda address: address == "10.0.0.9",
        "image": _is_image,
        "username": lambda name: name.isprintable() and ":" not in name and 0 < len(name) <= 255,
        "namePrefix volumePrefix prefix region mirrorsFrom": _matches(r"[a-zA-Z0-9][\w.-]{0,127}"),
        "bucket": _matches(r"(?!.*\.\.)[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]"),
        "unusedFor": _between(3600, 876_000 * 3600, seconds),
        "timeout": _between(1, 168 * 3600, seconds),
        "tagFreshness": _between(0, 24 * 3600, seconds),
        "maxSize": _between(1 / 1024, 1 << 20, mebibytes),
        "memoryLimit": _between(16, 1 << 20, mebibytes),
        "memory": _between(256, 1 << 20, mebibytes),
        "maxFiles": _between(1, 100, int),
        "replicas controlplanes": _between(1, 1000, int),
        "workers": _between(0, 1000, int),
        "cpus": _between(0.01, 1024, float),
        "cache": _matches(r"[\w:./-]{1,128}"),
        "schematic": _matches(r"[0-9a-f]{64}"),
        "talosVersion kubernetesVersion": _matches(r"v?\d{1,5}(\.\d{1,5}){2}(-[\w.-]+)?"),
        "mirrorHost": lambda host: "." in host and _is_dns_name(host),
        "names": _is_dns_name,
        "publishOn": lambda address: address in {"10.0.0.9", "0.0.0.0"},
        "cidr": _is_network,
        "talosctl file lock manifests disks takeOverFrom": (
            lambda text: text.isprintable() and text == text.strip() and 0 < len(text) <= 4095
        ),
        "extraArguments": _is_argument,
        "references": lambda text: image_reference.parse(text).registry != "",
        "platforms": lambda text: text == platforms.ALL or platforms.parse(text).os != "",
        "configPatches configPatchesControlplanes configPatchesWorkers": _is_patch,
        "offline pathStyle skipFallback mergeKubeconfig": lambda value: isinstance(value, bool),
        f"{HOST} mirrors": lambda value: isinstance(value, bool) or value == {},
        # Everything in these has a default.
        "demo clusters images talos": lambda value: not value,
        "caches storage placement tls front wildcard local logs proxy extraHosts": lambda value: (
            not value
        ),
        "nodeLabels": lambda labels: all(map(VALID["cache"], labels.values())),
    }.items()
    for key in keys.split()
}


def is_valid_value(path: Path, value: Any) -> bool:
    """Whether an accepted value is valid by these rules."""
    if value is None or (len(path) == 1 and value in ({}, "")):
        return True  # The same as a missing key, which the schema judges.
    last = str(path[-2] if isinstance(path[-1], int) else path[-1])
    values = value if isinstance(value, list) else [value]
    return last in VALID and all(map(VALID[last], values))


# One value at a time


def complaints(path: Path, value: Any, found: Sequence[tuple[str, str]]) -> Iterator[str]:
    """What is wrong with the mistakes reported for a value."""
    # Prefixes are part of upstreams' names; a Swarm's rule concerns the whole list.
    elsewhere = {"namePrefix": "caches.upstreams", "publishOn": "caches.publishOn"}
    places = (in_yaml(path), *(elsewhere[str(key)] for key in path if key in elsewhere))
    # Where the value is missing, another setting may report it.
    if value not in (None, {}, "") and not any(place.startswith(places) for place, _ in found):
        yield f"no mistake at {places}: {found}"
    for place, text in found:
        if not re.match(r"found\b.*; allowed: ", text) or not re.match(r"[a-zA-Z3]+[.[]?", place):
            yield f"not path, found and allowed: {place[:200]!r} {text[:200]!r}"
        if len(text) > LIMIT_OF_TEXT:
            yield f"a text of {len(text)} characters"
        if not (place + text).isprintable():
            yield f"it cannot be printed: {text!r}"
        if "hunter2" in text or AUTHORITY.key.splitlines()[1] in text:
            yield f"a secret is shown: {text[:200]!r}"


def _pattern(_: Validator, pattern: str, instance: Any, __: Any) -> Iterator[Any]:
    """ECMA patterns, whose `$` does not match before a line end."""
    if isinstance(instance, str) and not re.search(pattern.replace("$", r"\Z"), instance):
        yield jsonschema.ValidationError(f"{instance!r} does not match {pattern!r}")


Editor: Any = jsonschema.validators.extend(  # type: ignore[no-untyped-call]
    jsonschema.Draft202012Validator, {"pattern": _pattern}
)


def editor_accepts(written: Mapping[str, Any]) -> bool:
    """Whether an editor finds nothing wrong with a stack file."""
    config = {f"{reference.PROJECT}:{key}": value for key, value in written.items()}
    return bool(Editor(SCHEMA).is_valid({"config": config}))


def _types_alone(schema: Any) -> Any:
    """A schema reduced to the types of values."""
    if isinstance(schema, list):
        return [_types_alone(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    no_types = {"pattern", "minLength", "maxLength", "minimum", "maximum", "exclusiveMinimum"}
    return {key: _types_alone(one) for key, one in schema.items() if key not in no_types}


def cases(found: Field, values: Sequence[Any]) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Each value, with the stack file that has it at a field."""
    for value in values:
        written = replaced(BASES[found.base], found.path, value)
        if found.path[-1] == "username" and value is not None:
            written["passwords"] = {str(found.path[-2]): "hunter2"}
        yield value, written


def test_the_bases_are_valid_and_the_campaign_covers_every_field() -> None:
    for base in BASES.values():
        assert not mistakes(base)
        assert editor_accepts({key: one for key, one in base.items() if key not in secrets.KEYS})
    known = {key for path in FIELDS for key in path.path if isinstance(key, str)}
    in_models = {
        key
        for model in SCHEMA["$defs"].values()
        for one in [model, *model.get("anyOf", ())]
        for key in one.get("properties", {})
    }

    assert in_models - {"secure"} <= known
    assert len(FIELDS) * len(VALUES) > 10_000


@pytest.mark.parametrize("found", FIELDS, ids=lambda found: f"{found.base}: {in_yaml(found.path)}")
def test_every_value_is_refused_properly_or_valid_in_an_editor_too(found: Field) -> None:
    failures: list[str] = []
    schema = {**found.schema, "$defs": SCHEMA["$defs"]}
    editor, types = Editor(schema), Editor(_types_alone(schema))
    wrong_type = re.compile(f"found .*; allowed: ({A_TYPE})")
    for value, written in cases(found, VALUES):
        refused = mistakes(written)
        is_left_out = len(found.path) == 1 and value in (None, {}, "")
        if refused:
            failures += complaints(found.path, value, refused)
            text = dict(refused).get(in_yaml(found.path), "")
            # To JSON Schema, 1.0 is an integer.
            is_whole = isinstance(value, float) and value.is_integer()
            if wrong_type.fullmatch(text) and not is_whole and types.is_valid(value):
                failures.append(f"accepted by an editor: {value!r:.100}")
        elif not is_valid_value(found.path, value):
            failures.append(f"accepted: {value!r:.100}")
        elif not is_left_out and not editor.is_valid(value):
            failures.append(f"accepted, but not by an editor: {value!r:.100}")
    assert not failures, "\n".join(failures)


# In combination

MISTAKES = [
    ("caches", "publishOn", ["0.0.0.0", "127.0.0.1"]),
    ("caches", "retention", {"unusedFor": "9999999999999h"}),
    ("caches", "memoryLimit", "1k"),
    ("caches", "mirrorHost", "0.0.0.0"),
    ("caches", "image", "a//b::c"),
    ("caches", "namePrefix", "a/b"),
    ("caches", "cachess", 1),
    ("caches", "offline", "yes"),
    ("caches", "a\nb", 1),
    ("images", "platforms", ["linux/nonsense"]),
    ("images", "file", "a\0b"),
    ("images", "references", ["a b"]),
]
OF_CLUSTER = [
    ("cidr", "224.0.0.0/24"),
    ("cpus", "1"),
    ("workers", True),
    ("memory", "1k"),
    ("timeout", "0s"),
    ("configPatches", ["{"]),
    ("wokers", 1),
    ("extraArguments", ["a\0b"]),
]
ALL_MISTAKES = [
    *(((key, name), value) for key, name, value in MISTAKES),
    *((("clusters", "demo", name), value) for name, value in OF_CLUSTER),
    *((("clusters", "tls", name), value) for name, value in OF_CLUSTER),
]


@campaign(max_examples=300, deadline=None, derandomize=True)
@given(chosen=st.lists(st.sampled_from(ALL_MISTAKES), min_size=2, max_size=6, unique_by=str))
def test_no_mistake_hides_another(chosen: list[tuple[Path, Any]]) -> None:
    written: Any = BASES["engine"]
    for path, value in chosen:
        written = replaced(written, path, value)

    found = mistakes(written)

    for path, value in chosen:
        assert not list(complaints(path, value, found))


ANY_FIELDS = st.lists(
    st.tuples(st.sampled_from(FIELDS), st.sampled_from(VALUES)), min_size=1, max_size=4
)
ANY_SECRETS = st.dictionaries(
    st.sampled_from(secrets.KEYS),
    st.sampled_from(VALUES)
    | st.dictionaries(st.sampled_from([HOST, "via", "accessKey", "b c"]), st.sampled_from(VALUES)),
)


@campaign(
    max_examples=500,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(chosen=ANY_FIELDS, encrypted=ANY_SECRETS, base=st.sampled_from(["engine", "swarm"]))
def test_any_combination_is_accepted_or_refused_properly(
    chosen: list[tuple[Field, Any]], encrypted: dict[str, Any], base: str
) -> None:
    written: Any = {**BASES[base], **encrypted}
    for found, value in chosen:
        try:
            written = replaced(written, found.path, value)
        except (TypeError, LookupError, AttributeError):
            continue  # An earlier replacement has no such path.

    assert not list(complaints((), None, mistakes(written)))
