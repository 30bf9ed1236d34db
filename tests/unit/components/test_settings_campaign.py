"""Wrong values of every kind for every field that the schema has: refused in full, or right.

Each case is a stack that is right but for one value. The fields come from the JSON schema, so that
a new setting is part of the campaign as soon as it is there.
"""

import copy
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from typing import Any, NamedTuple

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import settings as campaign
from hypothesis import strategies as st
from jsonschema.protocols import Validator

from components import settings
from components.settings import SettingsError, reference
from components.settings.mistakes import in_yaml
from components.settings.values import HIGHEST_PORT, mebibytes, seconds
from talos_registry_cache.registry import platforms
from talos_registry_cache.registry import reference as image_reference
from tests.unit.components.certificates import AUTHORITY, OTHER

Path = tuple[str | int, ...]

HOST = "registry.test"
OTHER_HOST = "other.test"
UPSTREAMS = {
    HOST: {"port": 5000, "remoteUrl": "https://registry.test", "image": "registry:3.1.2"},
    OTHER_HOST: {"port": 5001, "remoteUrl": "https://other.test"},
}
LIMIT_OF_LINE = 3000


@dataclass(frozen=True)
class Base:
    """A stack file that is right, to be made wrong at one place."""

    written: Mapping[str, Any]
    secrets: Mapping[str, Any] = field(default_factory=dict)


ENGINE = {
    "upstreams": UPSTREAMS,
    "storage": {"kind": "volume"},
    "placement": {"kind": "engine"},
    "tls": {"kind": "own", "names": ["caches.test"]},
    "via": {"mirrors": {OTHER_HOST: "https://team.test:5001"}, "ca": AUTHORITY.certificate},
    "logs": {},
}
SWARM = {
    "upstreams": UPSTREAMS,
    "storage": {"kind": "s3", "bucket": "caches"},
    "placement": {"kind": "swarm", "nodeLabels": {"cache": "true"}},
    "tls": {"kind": "given", "certificate": AUTHORITY.certificate},
    "via": {"mirrors": {OTHER_HOST: "https://team.test:5001"}},
    "mirrorHost": "caches.test",
    "publishOn": ["0.0.0.0"],
}
CLUSTER = {
    "mirrors": {HOST: False},
    "disks": ["virtio:10GiB"],
    "configPatches": [{}],
    "configPatchesControlplanes": [{}],
    "configPatchesWorkers": [{}],
    "extraArguments": ["--debug"],
}
IMAGES = {"references": ["registry.test/a:1"], "talos": {}}
BASES = {
    "engine": Base({"caches": ENGINE, "clusters": {"demo": CLUSTER}, "images": IMAGES}),
    "swarm": Base(
        {"caches": SWARM},
        {"s3Keys": {"accessKey": "a", "secretKey": "s"}, "tlsKey": AUTHORITY.key},
    ),
    "elsewhere": Base({"clusters": {"demo": {}}, "mirrorsFrom": "dev"}),
}


# Every field that there is


class Field(NamedTuple):
    """A place in a stack file where a value belongs, with the schema that it has there."""

    base: str
    path: Path
    schema: Mapping[str, Any]


SCHEMA = reference.schema()
KEYS_OF_MAPS: Mapping[str, str] = {
    "upstreams": HOST,
    "clusters": "demo",
    "nodeLabels": "cache",
    "mirrors": HOST,
}


def fields_of(base: str) -> Iterator[Field]:
    """The fields of a stack of this kind, from the schema."""
    keys = SCHEMA["properties"]["config"]["properties"]
    for key, schema in keys.items():
        name = key.partition(":")[2]
        if name in BASES[base].written:
            yield from _within(base, (name,), schema, BASES[base].written[name])


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
    """The schemas of mappings and lists that a value may have, of the kind that is written."""
    if "$ref" in schema:
        schema = SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]]
    several = [*schema.get("anyOf", ()), *schema.get("oneOf", ())]
    if not several:
        kind = schema.get("properties", {}).get("kind", {}).get("const")
        if kind is None or (isinstance(written, Mapping) and written.get("kind", kind) == kind):
            yield schema
    for one in several:
        yield from _alternatives(one, written)


# A field that several stacks have is tried in the first.
FIELDS = list(
    {
        (found.path, json.dumps(found.schema)): found
        for base in reversed(BASES)
        for found in fields_of(base)
    }.values()
)


# Every kind of wrong value

TYPES: Sequence[Any] = [
    None, True, False, 0, -1, 1, 7, 10**9, 10**20, 10**400, -(10**30), 0.5, 1.0, -0.5, 1e300,
    math.inf, -math.inf, math.nan, [], [None], [[]], [1], ["a"], {}, {"a": 1}, {"": None},
    {"kind": "other"}, {"a\nb": 1}, [{"password": "hunter2"}], {"password": "hunter2"},
]  # fmt: skip
TEXTS: Sequence[str] = [
    "", " ", "\t", "a b", " a", "a ", "\0", "a\0b", "a\n", "\n", "a\nb", "\r", "\x1b[31m", "\x7f",
    "\u200b", "\u202e", "\u2028", "ä", "名", "١٢", "\ud800", "%00", "%2e%2e", "$(id)", "`id`",
    "'", '"',
    "\\", "{found}", "{0}", "%s", "~", "-", "--help", ".", "..", "...", "/", "//", "../..",
    "../../etc/passwd", "/dev/zero", "*", "null", "true", "yes", "NaN", "inf", "1e3", "0x10",
    "1_000",
    "a" * 64, "a" * 300, "a" * 5000, "9" * 5000, "." * 300, "a." * 150, "ä" * 5000, "[" * 5000,
    "{" * 5000,
]  # fmt: skip
SHAPES: Sequence[str] = [
    # sizes
    "0m", "1k", "5m", "-1m", "1.5m", "1", "1b", "1M", "1mb", "1 m", "\u0661m", f"{'9' * 30}g",
    "1025g",
    # durations
    "0s", "0ms", "9999999999999h", "1d", "-1h", "1h ", "h", "1.h", ".5h", "1h1", "1e3h", "1µs",
    f"{'9' * 400}h", "500ms", "never ", "Never",
    # URLs
    "https://", "https://..", "https://.", "https://a..b", "https://-a.test", "https://a-.test",
    "https://registry.test:0", "https://registry.test:65536", "https://registry.test:99999",
    "https://registry.test:", "https://registry.test:-1", "https://1.2.3", "https://1.2.3.4.5",
    "https://256.1.1.1", "https://[::1]", "https://127.0.0.1:5000", "http://localhost:5000",
    "https://0.0.0.0", "https://224.0.0.1", f"https://{'a' * 300}.test", f"https://{'a' * 64}.test",
    f"https://{'a.' * 150}test", "https://a_b.test", "https://a.test/v2", "https://a.test?a=1",
    "https://a.test#a", "https://me:hunter2@a.test", "ftp://a.test", "HTTPS://a.test", "//a.test",
    "https:a.test", "file:///etc/passwd", "https://a.test\n", "javascript:alert(1)",
    # hosts, with ports and without
    "a..b", ".a.test", "a.test.", "-a.test", "a-.test", "a.test:0", "a.test:65536", "a.test:99999",
    "a.test:", "a.test:b", f"{'a' * 64}.test", f"{'a.' * 150}test", "300.1.1.1", "1.2.3",
    "1.2.3.4.5",
    "01.2.3.4", "0.0.0.0", "255.255.255.255", "224.0.0.1", "240.0.0.1", "0.1.2.3", "::1",
    "fe80::1%1",
    "[::1]:5000", "A.test", "a_b.test", "xn--", "localhost:70000",
    # networks
    "10.5.0.1/24", "10.5.0.0/33", "10.5.0.0/-1", "10.5.0.0/30", "10.5.0.0/255.255.255.0",
    "10.5.0.0/",
    "127.0.0.0/8", "224.0.0.0/4", "224.0.0.0/24", "0.0.0.0/0", "0.0.0.0/8", "240.0.0.0/24",
    "169.254.0.0/16", "fd00::/64", "10.5/16", "10.5.0.0/024",
    # images
    "a//b::c", "a b", ":", "a:", "a@", "a@sha256:0", "a:b:c", "/a", "a/", "A", "a:-b", "a..b/c",
    "a___b",
    "a.test:99999/b", "https://a.test/b", f"a:{'b' * 129}", f"{'a/' * 200}b",
    # buckets and names
    "ab", "a..b", "a.-b", "a-.b", "-ab", "ab-", "a_b", "ABC", "10.0.0.9", "a/b", "a:b", "a;b", "_a",
    # PEM
    "-----BEGIN CERTIFICATE-----\n",
    "-----BEGIN CERTIFICATE-----\nMIID\n-----END CERTIFICATE-----\n",
    "-----BEGIN CERTIFICATE-----\nnot base64\n-----END CERTIFICATE-----\n", AUTHORITY.key,
    AUTHORITY.certificate + AUTHORITY.key, AUTHORITY.certificate.replace("\n", ""),
    AUTHORITY.certificate[:200], AUTHORITY.certificate.replace("MII", "AAA"),
    # platforms and versions
    "linux", "linux/", "linux/nonsense", "nonsense/amd64", "linux/amd64/", "linux/arm/nonsense",
    "Linux/amd64", "v1", "1.11", "v1.11.5 ", "vv1.11.5", "v1.11.5-", "v999999.1.1", "v1.11.x",
    "latest",
    # patches
    "a: b: c", "@file.yaml", "- just\n- words\n", "text", "{", "a: [",
    "!!python/object:os.system {}",
]  # fmt: skip
VALUES = [*TYPES, *TEXTS, *SHAPES]


# What is right all the same, and why


def _is_text_without_control_characters(text: str) -> bool:
    return text.isprintable() and text == text.strip() and 0 < len(text) <= 4095


def _is_name(text: str) -> bool:
    return re.fullmatch(r"[a-zA-Z0-9][\w.-]{0,127}", text, re.ASCII) is not None


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


def _is_reference(text: str) -> bool:
    return image_reference.parse(text).registry != ""


def _is_patch(value: Any) -> bool:
    if isinstance(value, dict):
        return True
    return all(isinstance(one, dict | list) for one in yaml.safe_load_all(value))


def _is_network(text: str) -> bool:
    network = IPv4Network(text)
    return network.prefixlen <= 29 and not (
        network.is_loopback or network.is_multicast or network.is_link_local or network.is_reserved
    )


def _is_argument(text: str) -> bool:
    return bool(text) and not re.search(r"[\0-\x08\x0b-\x1f\x7f\ud800]", text)


def _is_bucket(text: str) -> bool:
    return ".." not in text and bool(re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", text))


def _is_label(text: str) -> bool:
    return re.fullmatch(r"[\w:./-]{1,128}", text, re.ASCII) is not None


def _is_version(text: str) -> bool:
    return re.fullmatch(r"v?\d{1,5}\.\d{1,5}\.\d{1,5}(-[\w.-]+)?", text, re.ASCII) is not None


# By the last key of the path, which has one meaning in all of a stack file. Each rule says of a
# value that a user could mean it; that it has the type which the schema wants is checked for all.
RIGHT: Mapping[str, Callable[[Any], bool]] = {
    "port": lambda port: 1024 <= port <= HIGHEST_PORT,
    "remoteUrl": _is_url,
    "endpoint": _is_url,
    "image": _is_image,
    "username": lambda name: name.isprintable() and ":" not in name and 0 < len(name) <= 255,
    "namePrefix": _is_name,
    "volumePrefix": _is_name,
    "prefix": _is_name,
    "region": _is_name,
    "mirrorsFrom": _is_name,
    "bucket": _is_bucket,
    "ttl": lambda ttl: 0 < seconds(ttl) <= 876_000 * 3600,
    "timeout": lambda timeout: 1 <= seconds(timeout) <= 168 * 3600,
    "maxSize": lambda size: mebibytes(size) <= 1 << 20,
    "memoryLimit": lambda size: 16 <= mebibytes(size) <= 1 << 20,
    "memory": lambda size: 256 <= mebibytes(size) <= 1 << 20,
    "maxFiles": lambda number: 1 <= number <= 100,
    "replicas": lambda number: 1 <= number <= 1000,
    "controlplanes": lambda number: 1 <= number <= 1000,
    "workers": lambda number: 0 <= number <= 1000,
    "cpus": lambda cpus: 0.01 <= cpus <= 1024,
    "cache": _is_label,
    "talosVersion": _is_version,
    "kubernetesVersion": _is_version,
    "mirrorHost": lambda host: "." in host and _is_dns_name(host),
    "names": lambda names: not names,
    "takeOverFrom": lambda states: all(map(_is_text_without_control_characters, states)),
    "cidr": _is_network,
    "talosctl": _is_text_without_control_characters,
    "file": _is_text_without_control_characters,
    "disks": lambda disks: all(map(_is_text_without_control_characters, disks)),
    "extraArguments": lambda words: all(map(_is_argument, words)),
    "references": lambda references: all(map(_is_reference, references)),
    "platform": lambda platform: platforms.parse(platform).os != "",
    "configPatches": lambda patches: all(map(_is_patch, patches)),
    "configPatchesControlplanes": lambda patches: all(map(_is_patch, patches)),
    "configPatchesWorkers": lambda patches: all(map(_is_patch, patches)),
    HOST: lambda value: isinstance(value, bool) or value == {},
    # Left empty, all of it has a default.
    "demo": lambda cluster: not cluster,
    "clusters": lambda clusters: not clusters,
    "mirrors": lambda mirrors: mirrors == {},
    "images": lambda images: not images,
    "talos": lambda talos: talos == {},
    "logs": lambda logs: logs == {},
    "storage": lambda storage: storage == {},
    "placement": lambda placement: placement == {},
    "tls": lambda tls: tls == {},
    "nodeLabels": lambda labels: all(map(_is_label, labels.values())),
    "caches": lambda caches: not caches,
    **dict.fromkeys(
        ("offline", "pathStyle", "skipFallback", "mergeKubeconfig"),
        lambda value: isinstance(value, bool),
    ),
}
OF_ITEMS: Mapping[str, Callable[[Any], bool]] = {
    "names": _is_dns_name,
    "publishOn": lambda address: address in {"10.0.0.9", "0.0.0.0"},
    "disks": _is_text_without_control_characters,
    "takeOverFrom": _is_text_without_control_characters,
    "extraArguments": _is_argument,
    "references": _is_reference,
    "configPatches": _is_patch,
    "configPatchesControlplanes": _is_patch,
    "configPatchesWorkers": _is_patch,
}


def is_right(path: Path, value: Any) -> bool:
    """Whether a value that was accepted is one that a user could mean."""
    if value is None or (len(path) == 1 and value in ({}, "")):
        return True  # Left out; whether it may be, is for the schema to say.
    last = path[-1]
    rule = OF_ITEMS[str(path[-2])] if isinstance(last, int) else RIGHT.get(str(last))
    return rule is not None and bool(rule(value))


# One value at a time


def replaced(written: Any, path: Path, value: Any) -> Any:
    """What is written with another value at a path."""
    if not path:
        return value
    changed = copy.copy(written) if written is not None else {}
    head, rest = path[0], path[1:]
    below = changed[head] if isinstance(head, int) or head in changed else None
    changed[head] = replaced(below, rest, value)
    return changed


def refusal(base: str, written: Mapping[str, Any], **more: Any) -> Sequence[str]:
    """What is said of a stack file, line by line, and nothing of one that is right.

    Any exception but a refusal is a failure of the test.
    """
    try:
        settings.parse(
            "dev",
            caches=written.get("caches"),
            clusters=written.get("clusters"),
            images=written.get("images"),
            mirrors_from=written.get("mirrorsFrom"),
            secrets={**BASES[base].secrets, **more},
        )
    except SettingsError as error:
        head, *lines = str(error).split("\n")
        assert head == "Pulumi.dev.yaml has mistakes, nothing was changed:"
        assert lines
        return [line.removeprefix("  ") for line in lines]
    return []


def complaints(path: Path, value: Any, lines: Sequence[str]) -> Iterator[str]:
    """What is wrong with the refusal of a value."""
    place = in_yaml(path)
    # What is left out may be missed by something else.
    # It is in the names of upstreams; and what a Swarm allows is said of the whole list.
    elsewhere = {"namePrefix": "caches.upstreams", "publishOn": "caches.publishOn:"}
    places = (place, *(elsewhere[str(key)] for key in path if key in elsewhere))
    if value not in (None, {}, "") and not any(line.startswith(places) for line in lines):
        yield f"no line begins with {place}: {lines}"
    for line in lines:
        if not re.match(r"[a-zA-Z3]+[^ ]*(\[\"[^\n]*\"\][^ ]*)?: found\b.*; allowed: ", line):
            yield f"not path, found and allowed: {line[:200]!r}"
        if len(line) > LIMIT_OF_LINE:
            yield f"a line of {len(line)} characters"
        if not line.isprintable():
            yield f"it cannot be printed: {line!r}"
        if "hunter2" in line or AUTHORITY.key.splitlines()[1] in line:
            yield f"a secret is shown: {line[:200]!r}"


def _pattern(_: Validator, pattern: str, instance: Any, __: Any) -> Iterator[Any]:
    """As ECMA has it, of which `$` is the end of the text, and no line end before it."""
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
    """A schema that says which types a value and what is in it may have, and no more."""
    if isinstance(schema, list):
        return [_types_alone(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    no_types = {"pattern", "minLength", "maxLength", "minimum", "maximum", "exclusiveMinimum"}
    return {key: _types_alone(one) for key, one in schema.items() if key not in no_types}


def cases(found: Field, values: Sequence[Any]) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Each value, with the stack file that has it at a field."""
    for value in values:
        yield value, replaced(BASES[found.base].written, found.path, value)


def secrets_for(found: Field, value: Any) -> dict[str, Any]:
    """The secret that a value wants: a user name comes with a password."""
    if found.path[-1] != "username" or value is None:
        return {}
    return {"passwords": {str(found.path[-2]): "hunter2"}}


def test_the_bases_are_right_and_so_every_refusal_is_of_what_was_changed() -> None:
    for name, base in BASES.items():
        assert not refusal(name, base.written)
        assert editor_accepts(base.written)


def test_the_campaign_has_every_field_of_every_model_and_thousands_of_cases() -> None:
    known = {key for path in FIELDS for key in path.path if isinstance(key, str)}
    in_models = {
        key
        for model in SCHEMA["$defs"].values()
        for one in [model, *model.get("anyOf", ())]
        for key in one.get("properties", {})
    }

    assert in_models - {"secure"} <= known
    assert len(FIELDS) * len(VALUES) > 10_000


EACH_FIELD = pytest.mark.parametrize(
    "found", FIELDS, ids=lambda found: f"{found.base}: {in_yaml(found.path)}"
)


@EACH_FIELD
def test_every_value_is_refused_in_full_or_is_right_in_an_editor_too(found: Field) -> None:
    failures: list[str] = []
    editor = Editor({**found.schema, "$defs": SCHEMA["$defs"]})
    for value, written in cases(found, VALUES):
        lines = refusal(found.base, written, **secrets_for(found, value))
        if lines:
            failures += complaints(found.path, value, lines)
        elif not is_right(found.path, value):
            failures.append(f"accepted: {value!r:.100}")
        elif not is_left_out(found.path, value) and not editor.is_valid(value):
            failures.append(f"accepted, but not by an editor: {value!r:.100}")
    assert not failures, "\n".join(failures)


@EACH_FIELD
def test_what_is_refused_for_its_type_is_so_in_an_editor_too(found: Field) -> None:
    failures: list[str] = []
    editor = Editor(_types_alone({**found.schema, "$defs": SCHEMA["$defs"]}))
    for value, written in cases(found, TYPES):
        lines = refusal(found.base, written)
        if refused_for_its_type(found.path, lines) and not is_whole(value):
            failures += [f"accepted by an editor: {value!r:.100}"] * editor.is_valid(value)
    assert not failures, "\n".join(failures)


def refused_for_its_type(path: Path, lines: Sequence[str]) -> bool:
    """Whether the program says that a value has not the right type."""
    types = "a text|a mapping|a list|a whole number|a number|true or false"
    line = re.compile(rf"{re.escape(in_yaml(path))}: found .*; allowed: ({types})")
    return any(map(line.fullmatch, lines))


def is_whole(value: Any) -> bool:
    """Whether a value is a number such as 1.0, which is an integer to JSON Schema."""
    return isinstance(value, float) and value.is_integer()


def is_left_out(path: Path, value: Any) -> bool:
    """Whether a key of the stack file has nothing: Pulumi hands that over as a key left out."""
    return len(path) == 1 and value in (None, {}, "")


# What was accepted once, each an example of its kind


def changed(base: str, path: str, value: Any) -> Mapping[str, Any]:
    """A stack file that is right but for one value; the path's parts are parted by spaces."""
    written: Mapping[str, Any] = replaced(BASES[base].written, tuple(path.split()), value)
    return written


@pytest.mark.parametrize(
    ("base", "path", "value", "at"),
    [
        ("engine", "caches publishOn", ["0.0.0.0", "127.0.0.1"], "caches.publishOn[0]"),
        ("engine", "caches publishOn", ["127.0.0.1", "127.0.0.1"], "caches.publishOn[1]"),
        ("engine", "caches ttl", "9999999999999h", "caches.ttl"),
        ("engine", "caches ttl", "0s", "caches.ttl"),
        ("engine", "caches memoryLimit", "1k", "caches.memoryLimit"),
        ("engine", "caches memoryLimit", f"{2**64}m", "caches.memoryLimit"),
        ("engine", "caches logs maxSize", f"{'9' * 30}g", "caches.logs.maxSize"),
        ("engine", "caches mirrorHost", "0.0.0.0", "caches.mirrorHost"),
        ("engine", "caches tls names", ["300.1.1.1"], "caches.tls.names[0]"),
        ("engine", "caches image", "a//b::c", "caches.image"),
        ("engine", "caches via ca", "-----BEGIN CERTIFICATE-----\nMII\n", "caches.via.ca"),
        ("engine", "caches via mirrors", {HOST: "http://127.0.0.1:5000"}, "caches.via.mirrors"),
        ("engine", f"caches upstreams {HOST} remoteUrl", "https://..", "caches.upstreams"),
        (
            "engine",
            f"caches upstreams {HOST} remoteUrl",
            "https://a.test:65536",
            "caches.upstreams",
        ),
        ("engine", "caches upstreams a.test:65536", UPSTREAMS[HOST], "caches.upstreams"),
        ("engine", f"caches upstreams {'a' * 300}.test", UPSTREAMS[HOST], "caches.upstreams"),
        ("engine", "clusters demo cidr", "127.0.0.0/8", "clusters.demo.cidr"),
        ("engine", "clusters demo cidr", "224.0.0.0/24", "clusters.demo.cidr"),
        ("engine", "clusters demo configPatches", ["a: b: c"], "clusters.demo.configPatches[0]"),
        ("engine", "clusters demo cpus", "1.5", "clusters.demo.cpus"),
        ("engine", "clusters demo cpus", True, "clusters.demo.cpus"),
        ("engine", f"clusters demo mirrors {HOST}", "yes", "clusters.demo.mirrors"),
        ("engine", "images file", "a\0b", "images.file"),
        ("engine", "images platform", "linux/nonsense", "images.platform"),
        ("swarm", "caches storage bucket", "a..b", "caches.storage.bucket"),
        ("swarm", "caches storage endpoint", "http://localhost:9000", "caches.storage.endpoint"),
        ("swarm", "caches namePrefix", "a" * 60, 'caches.upstreams["registry.test"]'),
        ("swarm", "caches namePrefix", "a.b", "caches.namePrefix"),
        ("swarm", "caches placement nodeLabels", {"a": "b c"}, "caches.placement.nodeLabels.a"),
    ],
)
def test_what_failed_in_the_middle_of_up_or_was_plainly_wrong_is_refused(
    base: str, path: str, value: Any, at: str
) -> None:
    lines = refusal(base, changed(base, path, value))

    assert [line for line in lines if line.startswith(at)], lines
    assert not list(complaints((at.partition(".")[0],), value, lines))


def test_two_registries_with_one_name_on_a_swarm_are_refused() -> None:
    both = {
        "a.b.test": {"port": 5000, "remoteUrl": "https://a.test"},
        "a-b.test": {"port": 5001, "remoteUrl": "https://b.test"},
    }
    without = replaced(changed("swarm", "caches upstreams", both), ("caches", "via"), None)

    (line,) = refusal("swarm", without)

    assert line.startswith('caches.upstreams["a-b.test"]: found the service name registry-dev-a-b')


@pytest.mark.parametrize("url", ["http://caches.test:5001", "https://caches.test:5000/"])
@pytest.mark.parametrize("place", [f"upstreams {HOST} remoteUrl", f"via mirrors {HOST}"])
def test_caches_that_ask_themselves_are_refused(url: str, place: str) -> None:
    (line,) = refusal("swarm", changed("swarm", f"caches {place}", url))

    assert line.startswith(in_yaml(("caches", *place.split())))
    assert "this stack's own cache of" in line


def test_the_port_of_a_url_may_be_that_of_its_scheme() -> None:
    written = changed(
        "swarm", f"caches upstreams {HOST}", {"port": 443, "remoteUrl": "https://a.b"}
    )
    own = replaced(written, ("caches", "via", "mirrors", HOST), "https://caches.test")

    with pytest.raises(SettingsError, match="which is this stack's own cache of"):
        settings.parse("dev", caches=own["caches"], secrets=BASES["swarm"].secrets, is_root=True)


@pytest.mark.parametrize(
    ("base", "path"), [("engine", f"upstreams {HOST}"), ("engine", "via")], ids=["upstream", "via"]
)
def test_a_password_that_would_go_in_the_clear_is_refused(base: str, path: str) -> None:
    plain: Mapping[str, Any] = {
        "via": {"mirrors": {HOST: "http://a.test"}},
        f"upstreams {HOST}": {"port": 5000, "remoteUrl": "http://a.test"},
    }
    written = changed(base, f"caches {path}", {**plain[path], "username": "me"})

    lines = refusal(base, written, passwords={path.rsplit(maxsplit=1)[-1]: "hunter2"})

    at = in_yaml(("caches", *path.split(), "username"))
    text = "found one for http://a.test, where its password would go in the clear"
    assert lines == [f"{at}: {text}; allowed: one with https://"]


@pytest.mark.parametrize(
    ("key", "found"),
    [
        (OTHER.key, "found the key of another certificate"),
        ("hunter2", "found no private key"),
        (AUTHORITY.certificate, "found no private key"),
        (AUTHORITY.key[:100], "found no private key"),
        ("\ud800", "found no private key"),
    ],
    # Not what pytest makes of the keys, which are others in each of its processes.
    ids=["another's", "no PEM", "a certificate", "cut off", "no Unicode"],
)
def test_a_key_is_that_of_its_certificate(key: str, found: str) -> None:
    (line,) = refusal("swarm", BASES["swarm"].written, tlsKey=key)

    assert line.startswith(f"tlsKey: {found}; allowed: ")


def test_certificates_are_read_with_what_stands_between_them_but_not_with_a_key() -> None:
    chain = f"{AUTHORITY.certificate}\nits authority:\n{OTHER.certificate}"
    assert not refusal("swarm", changed("swarm", "caches tls certificate", chain))

    with_key = changed("swarm", "caches tls certificate", AUTHORITY.certificate + AUTHORITY.key)
    (line,) = refusal("swarm", with_key)
    assert "found a private key among them" in line


# In combination

MISTAKES = [
    ("caches", "publishOn", ["0.0.0.0", "127.0.0.1"]),
    ("caches", "ttl", "9999999999999h"),
    ("caches", "memoryLimit", "1k"),
    ("caches", "mirrorHost", "0.0.0.0"),
    ("caches", "image", "a//b::c"),
    ("caches", "namePrefix", "a/b"),
    ("caches", "cachess", 1),
    ("caches", "offline", "yes"),
    ("caches", "a\nb", 1),
    ("images", "platform", "linux/nonsense"),
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
def test_mistakes_together_are_all_told_and_none_hides_another(
    chosen: list[tuple[Path, Any]],
) -> None:
    written: Any = BASES["engine"].written
    for path, value in chosen:
        written = replaced(written, path, value)

    lines = refusal("engine", written)

    for path, value in chosen:
        assert not list(complaints(path, value, lines))


SEVERAL = st.lists(
    st.tuples(st.sampled_from(FIELDS), st.sampled_from(VALUES)), min_size=2, max_size=4
)


@campaign(max_examples=500, deadline=None, derandomize=True)
@given(chosen=SEVERAL, base=st.sampled_from(["engine", "swarm"]))
def test_whatever_goes_together_there_is_a_refusal_in_full_or_none(
    chosen: list[tuple[Field, Any]], base: str
) -> None:
    written: Any = BASES[base].written
    for found, value in chosen:
        try:
            written = replaced(written, found.path, value)
        except (TypeError, LookupError, AttributeError):
            continue  # What was put there before has no such place.

    for complaint in complaints((), None, refusal(base, written)):
        raise AssertionError(complaint)
