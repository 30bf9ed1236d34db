"""The types of values in settings, each with its check."""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainValidator,
    WithJsonSchema,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import core_schema

from talos_registry_cache.registry import files, reference
from talos_registry_cache.registry.errors import InvalidReferenceError
from talos_registry_cache.talos.images import SCHEMATIC

from .mistakes import Mistake, refuse_within, refused, saying

ANY_ADDRESS = "0.0.0.0"  # noqa: S104 - only for stacks that name it

LOWEST_UNPRIVILEGED_PORT = 1024
HIGHEST_PORT = 65535
LONGEST_PREFIX = 29
LONGEST_TEXT = 4095
LONGEST_ARGUMENT = 100_000
LONGEST_USERNAME = 255
LARGEST_SIZE = "1024g"
BYTES_PER_UNIT = {"k": 10**3, "m": 10**6, "g": 10**9}
KIB_PER_UNIT = {"k": 1, "m": 1 << 10, "g": 1 << 20}
SECONDS_PER_UNIT = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}
# This network, multicast, and reserved addresses.
NOT_UNICAST = [IPv4Network(one) for one in ("0.0.0.0/8", "224.0.0.0/4", "240.0.0.0/4")]
# And loopback and link-local addresses.
NO_NETWORK_OF_NODES = [
    *NOT_UNICAST,
    IPv4Network("127.0.0.0/8"),
    IPv4Network("169.254.0.0/16"),
]

# In the syntax that Python and JSON Schema share.
_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_LABEL_OF_ANY_CASE = r"[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
_OCTET = r"(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_IPV4 = rf"({_OCTET}\.){{3}}{_OCTET}"
_PORT = r"([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
# A DNS name has up to 253 characters; with a last label of digits it would be an address.
_FITS = r"(?=[a-zA-Z0-9.-]{1,253}([:/]|$))"
_HOST = rf"{_FITS}({_LABEL}\.)+(?=[0-9-]*[a-z]){_LABEL}"
_CERTIFICATE = "-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----"
_HOST_NAME = rf"{_FITS}({_LABEL_OF_ANY_CASE}\.)*(?=[0-9-]*[a-zA-Z]){_LABEL_OF_ANY_CASE}"
_HOST_OF_URL = rf"({_FITS}{_IPV4}|{_HOST_NAME})"
_DURATION = r"([0-9]+(\.[0-9]+)?(ms|s|m|h))+"


def is_ipv4(value: str) -> bool:
    """Whether a text is an IPv4 address."""
    try:
        IPv4Address(value)
    except ValueError:
        return False
    return True


def is_unicast(host: str) -> bool:
    """Whether a host is a name or a unicast IPv4 address, unlike 224.0.0.1."""
    return not is_ipv4(host) or all(IPv4Address(host) not in network for network in NOT_UNICAST)


@dataclass(frozen=True, slots=True)
class _Matching:
    """A text that a pattern matches as a whole.

    Attributes:
        pattern: a regular expression, in the syntax that Python and JSON Schema share.
        allowed: the pattern in words.
    """

    pattern: str
    allowed: str

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        """The check by pydantic."""
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """The check by an editor."""
        return handler(schema) | {"pattern": _whole(self.pattern)}

    def _check(self, value: str) -> str:
        if not re.fullmatch(self.pattern, value, re.ASCII):
            raise refused(value, self.allowed)
        return value


def _whole(pattern: str) -> str:
    return f"^({pattern})$"


def _in_schema(pattern: str) -> WithJsonSchema:
    """The pattern for editors, of a text whose own check has better messages."""
    return WithJsonSchema({"type": "string", "pattern": _whole(pattern)})


def _mirror_host(value: str) -> str:
    if re.fullmatch(rf"auto|{_IPV4}|{_HOST}", value) and is_unicast(value):
        return value
    allowed = "auto, an IPv4 address, or a host name such as host.docker.internal"
    raise refused(value, f"{allowed}, where nodes reach this machine")


def _remote_url(value: str) -> str:
    """Check the URL of an upstream, and drop one slash at its end."""
    return _http_url(
        value,
        example="https://quay.io",
        credentials="credentials go into username and passwords",
        path=(
            "without a path, which belongs into the mirror on the nodes, with overridePath "
            "(docs/company-networks.md)"
        ),
    )


def _proxy_url(value: str) -> str:
    """Check the URL of a proxy, and drop one slash at its end."""
    return _http_url(
        value,
        example="http://proxy.example:3128",
        credentials=(
            "without a password, which docker inspect would show: for a proxy that needs one, run "
            "a proxy on this machine that logs in to it (docs/company-networks.md)"
        ),
    )


def _http_url(value: str, *, example: str, credentials: str, path: str = "without a path") -> str:
    """Check a URL that caches connect to, and drop one slash at its end.

    Args:
        value: the URL.
        example: a valid one.
        credentials: what to do instead of putting credentials into the URL.
        path: what to do instead of putting a path into the URL.
    """
    allowed = f"http:// or https:// with a host and perhaps a port, such as {example}"
    if "@" in value:
        scheme = re.match(r"[a-zA-Z]*://", value)
        visible = f"{scheme[0] if scheme else ''}[hidden]@{value.rpartition('@')[2]}"
        raise refused(visible, f"{allowed}; {credentials}")
    url = re.fullmatch(r"(?P<scheme>https?)://(?P<host>[^/?#]*)(?P<path>.*)", value)
    if url is None or not re.fullmatch(rf"{_HOST_OF_URL}(:{_PORT})?", url["host"]):
        raise refused(value, allowed)
    if url["path"] not in {"", "/"}:
        raise refused(value, f"{allowed}; {path}")
    host = url["host"].partition(":")[0].lower()
    if host == "localhost" or (is_ipv4(host) and IPv4Address(host).is_loopback):
        raise refused(value, f"{allowed}; not loopback, which in a container is the cache itself")
    if not is_unicast(host):
        raise refused(value, f"{allowed}; a unicast address")
    return f"{url['scheme']}://{url['host']}"


def _pem(value: str) -> str:
    """Check certificates, given as text or as the path of a file; returns the text."""
    allowed = "PEM certificates, starting with -----BEGIN CERTIFICATE-----, or a file with them"
    pem = value if value.startswith("-----BEGIN ") else _certificates_in(value, allowed)
    if not re.match(r"-----BEGIN CERTIFICATE-----\s", pem):
        raise refused(value[:40], allowed)
    if "PRIVATE KEY-----" in pem:
        raise saying(f"found a private key; allowed: only {allowed}")
    # Few stacks have a certificate, and cryptography takes long to load.
    from . import certificates  # noqa: PLC0415 - see above

    if not certificates.are_certificates(pem):
        raise saying(f"found unreadable certificates; allowed: {allowed}")
    return pem


def _certificates_in(file: str, allowed: str) -> str:
    """The certificates in a file, without the comments that bundles have between them."""
    try:
        content = files.read_text(Path(file), files.SMALL_LIMIT, regular=True)
    except (OSError, ValueError) as error:
        raise refused(file[:40], allowed, getattr(error, "strerror", error)) from None
    return "".join(f"{one}\n" for one in re.findall(_CERTIFICATE, content, re.DOTALL))


def _address(value: object) -> object:
    if isinstance(value, str) and is_ipv4(value):
        if value != ANY_ADDRESS and not is_unicast(value):
            raise refused(value, "a unicast IPv4 address")
        return value
    raise refused(value, "an IPv4 address")


def _addresses(value: list[str]) -> list[str]:
    """Check that no port is opened twice on an address."""
    refuse_within(
        Mistake((number,), f"found {address} again; allowed: each address once")
        for number, address in enumerate(value)
        if address in value[:number]
    )
    if ANY_ADDRESS in value and len(value) > 1:
        at = value.index(ANY_ADDRESS)
        text = f"found {ANY_ADDRESS}, which means all addresses, beside others"
        refuse_within([Mistake((at,), f"{text}; allowed: {ANY_ADDRESS} alone")])
    return value


def _cidr(value: str) -> str:
    try:
        network = IPv4Network(value, strict=False)
    except ValueError:
        raise refused(value, "an IPv4 network such as 10.5.0.0/24") from None
    if network.prefixlen > LONGEST_PREFIX:
        raise refused(value, f"a network of /{LONGEST_PREFIX} or larger")
    if str(network) != value:
        raise refused(value, f"an IPv4 network without host bits, such as {network}")
    if any(network.overlaps(other) for other in NO_NETWORK_OF_NODES):
        raise refused(value, "a unicast network, such as 10.5.0.0/24")
    return value


def _patch(value: object) -> object:
    """Check a patch here: pydantic would report one mistake for each type of a union."""
    if isinstance(value, dict):
        return value
    if not isinstance(value, str) or not value:
        raise refused(value, "a mapping, or non-empty YAML text")
    try:
        documents = list(yaml.safe_load_all(value))
    except (yaml.YAMLError, ValueError, RecursionError):
        raise refused(value, "a mapping, or valid YAML text") from None
    if not all(isinstance(one, dict | list | None) for one in documents) or not any(documents):
        raise refused(value, "a mapping, or YAML text of a mapping or a list of JSON patches")
    return value


def seconds(duration: str) -> float:
    """The number of seconds in a duration such as `1h30m`."""
    parts = re.findall(r"([0-9.]+)(ms|s|m|h)", duration)
    return sum(float(number) * SECONDS_PER_UNIT[unit] for number, unit in parts)


def number_of_bytes(size: str) -> int:
    """The number of bytes in a size such as `20g`; units are powers of 1000."""
    return int(size[:-1]) * BYTES_PER_UNIT[size[-1]]


def mebibytes(size: str) -> int:
    """The number of MiB in a size such as `512m`, at least one."""
    return max(1, round(_kibibytes(size) / KIB_PER_UNIT["m"]))


def _kibibytes(size: str) -> int:
    return int(size[:-1]) * KIB_PER_UNIT[size[-1]]


def checked(is_allowed: Callable[[str], bool], allowed: str) -> AfterValidator:
    """A check of a text.

    Args:
        is_allowed: whether a text is allowed.
        allowed: what is allowed, in words.
    """

    def check(value: str) -> str:
        if not is_allowed(value):
            raise refused(value, allowed)
        return value

    return AfterValidator(check)


def _size_from(lowest: str) -> AfterValidator:
    low, high = _kibibytes(lowest), _kibibytes(LARGEST_SIZE)
    return checked(
        lambda size: low <= _kibibytes(size) <= high, f"a size from {lowest} to {LARGEST_SIZE}"
    )


def _lasting(lowest: str, highest: str, allowed: str) -> AfterValidator:
    low, high = seconds(lowest), seconds(highest)
    return checked(
        lambda duration: low <= seconds(duration) <= high,
        f"{allowed} from {lowest} to {highest}",
    )


def _image(value: str) -> str:
    try:
        image = reference.parse(value)
    except InvalidReferenceError as error:
        raise refused(value, _IMAGE, error) from None
    if image.digest is None and image.tag == MOVING_TAG:
        raise refused(value, f"{_IMAGE}, with a fixed tag or a digest")
    return value


def _port(value: int) -> int:
    is_root = os.name == "posix" and os.geteuid() == 0
    lowest = 1 if is_root else LOWEST_UNPRIVILEGED_PORT
    if not lowest <= value <= HIGHEST_PORT:
        hint = "" if is_root else "; lower ports need root"
        raise refused(value, f"{lowest} to {HIGHEST_PORT}{hint}")
    return value


_IMAGE = "an image reference such as registry:3.1.2"
MOVING_TAG = "latest"

Address = Annotated[str, BeforeValidator(_address), _in_schema(_IPV4)]
Addresses = Annotated[list[Address], Field(min_length=1), AfterValidator(_addresses)]
Argument = Annotated[
    str,
    Field(min_length=1),
    checked(
        lambda text: len(text) <= LONGEST_ARGUMENT and re.sub(r"[\n\t]", "", text).isprintable(),
        f"up to {LONGEST_ARGUMENT} printable characters, tabs and line breaks",
    ),
]
Cidr = Annotated[str, AfterValidator(_cidr), _in_schema(rf"{_IPV4}/[12]?[0-9]")]
ClusterName = Annotated[
    str,
    _Matching(
        r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?",
        "up to 40 lowercase letters, digits and dashes, without a dash at either end",
    ),
]
Bucket = Annotated[
    str,
    _Matching(
        rf"(?=.{{3,63}}$)(?!{_IPV4}$){_LABEL}(\.{_LABEL})*",
        "the name of a bucket, such as registry-caches",
    ),
]
MirrorHost = Annotated[str, AfterValidator(_mirror_host), _in_schema(rf"auto|{_IPV4}|{_HOST}")]
Image = Annotated[
    str,
    _Matching(r"[a-z0-9][a-zA-Z0-9._/:-]*(@sha256:[0-9a-f]{64})?", _IMAGE),
    AfterValidator(_image),
]
HostAddress = Annotated[
    Address,
    checked(
        lambda address: is_unicast(address) and not IPv4Address(address).is_loopback,
        "an IPv4 address of another host; not loopback, which in a container is the cache itself",
    ),
]
HostName = Annotated[str, _Matching(_HOST_NAME, "a host name such as registry.corp.example")]
LabelValue = Annotated[
    str, _Matching(r"[a-zA-Z0-9:_./-]{1,128}", "up to 128 letters, digits and : _ . / -")
]
_Size = Annotated[str, _Matching(r"[1-9][0-9]{0,11}[kmg]", "a number with k, m or g, such as 10m")]
DiskSize = Annotated[_Size, _size_from("1k")]
# With less, the registry runs out of memory before it answers.
Memory = Annotated[_Size, _size_from("16m")]
MemoryOfNode = Annotated[_Size, _size_from("256m")]
Name = Annotated[
    str,
    _Matching(
        r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}",
        "up to 128 letters, digits, dots, dashes and underscores, the first a letter or digit",
    ),
]
NullIsEmpty = BeforeValidator(lambda value: {} if value is None else value)
"""Takes a key without a value, which is null in YAML, for an empty mapping."""
NoProxy = Annotated[
    str,
    _Matching(
        r"[a-zA-Z0-9.*_:/\[\]-]{1,253}",
        "a host, a domain, an address or a network, such as corp.example or 10.0.0.0/8",
    ),
]
Patch = Annotated[dict[str, Any] | str, PlainValidator(_patch)]
Pem = Annotated[str, AfterValidator(_pem)]
Port = Annotated[
    int,
    Field(strict=True, json_schema_extra={"minimum": 1, "maximum": HIGHEST_PORT}),
    AfterValidator(_port),
]
ProxyUrl = Annotated[
    str, AfterValidator(_proxy_url), _in_schema(rf"https?://{_HOST_OF_URL}(:{_PORT})?/?")
]
RegistryHost = Annotated[
    str,
    _Matching(
        rf"({_HOST}|localhost|{_IPV4})(:{_PORT})?",
        "a registry host such as quay.io",
    ),
]
RemoteUrl = Annotated[
    str, AfterValidator(_remote_url), _in_schema(rf"https?://{_HOST_OF_URL}(:{_PORT})?/?")
]
Schematic = Annotated[
    str, _Matching(SCHEMATIC, "the ID of a schematic, which has 64 hexadecimal digits")
]
ServerName = Annotated[
    str,
    _Matching(rf"{_HOST}|localhost|{_IPV4}", "a host name or an IPv4 address"),
]
Timeout = Annotated[
    str,
    _Matching(_DURATION, "a duration such as 20m"),
    _lasting("1s", "168h", "a duration"),
]
Freshness = Annotated[
    str,
    _Matching(_DURATION, "a duration such as 1m"),
    _lasting("0s", "24h", "a duration"),
]
Period = Annotated[
    str,
    _Matching(_DURATION, "a duration such as 720h"),
    _lasting("1h", "876000h", "a duration"),
]
Text = Annotated[
    str,
    Field(min_length=1),
    checked(
        lambda text: text.isprintable() and text == text.strip() and len(text) <= LONGEST_TEXT,
        f"up to {LONGEST_TEXT} printable characters, without spaces at either end",
    ),
]
Username = Annotated[
    str,
    Field(min_length=1),
    checked(
        lambda name: name.isprintable() and ":" not in name and len(name) <= LONGEST_USERNAME,
        f"up to {LONGEST_USERNAME} printable characters, and no colon",
    ),
]
VersionText = Annotated[
    str,
    _Matching(
        r"v?[0-9]{1,5}\.[0-9]{1,5}\.[0-9]{1,5}(-[0-9A-Za-z.-]{1,64})?",
        "a version such as v1.11.5",
    ),
]
