"""The kinds of values that settings have, each with its rule."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Annotated, Any

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainValidator,
    ValidationInfo,
    WithJsonSchema,
)
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import core_schema

from talos_registry_cache.registry import reference
from talos_registry_cache.registry.errors import InvalidReferenceError

from .mistakes import Mistake, refuse_within, refused, saying

ANY_ADDRESS = "0.0.0.0"  # noqa: S104 - what is refused, unless a stack names it

LOWEST_UNPRIVILEGED_PORT = 1024
HIGHEST_PORT = 65535
LONGEST_PREFIX = 29
LONGEST_TEXT = 4095
LONGEST_ARGUMENT = 100_000
LONGEST_USERNAME = 255
KIB_PER_UNIT = {"k": 1, "m": 1 << 10, "g": 1 << 20}
SECONDS_PER_UNIT = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}
# What no machine has as its address: this network, multicast, and what is reserved.
NOBODYS = [IPv4Network(one) for one in ("0.0.0.0/8", "224.0.0.0/4", "240.0.0.0/4")]
# What no network of nodes can be, beside these: loopback and link-local.
NO_NODES = [*NOBODYS, IPv4Network("127.0.0.0/8"), IPv4Network("169.254.0.0/16")]

# Only what Python and JSON Schema understand alike.
_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_LABEL_OF_ANY_CASE = r"[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
_OCTET = r"(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_IPV4 = rf"({_OCTET}\.){{3}}{_OCTET}"
_PORT = r"([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
# A name of DNS has 253 characters at most; a last label of digits would make it an address.
_FITS = r"(?=[a-zA-Z0-9.-]{1,253}([:/]|$))"
_HOST = rf"{_FITS}({_LABEL}\.)+(?=[0-9-]*[a-z]){_LABEL}"
_HOST_OF_URL = rf"{_FITS}({_IPV4}|({_LABEL_OF_ANY_CASE}\.)*(?=[0-9-]*[a-zA-Z]){_LABEL_OF_ANY_CASE})"
_DURATION = r"([0-9]+(\.[0-9]+)?(ms|s|m|h))+"
_SIZE = r"[1-9][0-9]{0,11}[kmg]"


class Model(BaseModel):
    """Settings that cannot be changed, with keys in camelCase and no others."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        validate_default=False,
    )


def by_kind(default: str) -> Discriminator:
    """What tells settings of several kinds apart: their key `kind`.

    Args:
        default: the kind of those that do not say.
    """

    def kind(value: Any) -> Any:
        is_written = isinstance(value, Mapping)
        kind = value.get("kind", default) if is_written else getattr(value, "kind", default)
        # It is shown where it is wrong, and may be anything.
        return "no text" if isinstance(kind, Mapping | list) else str(kind)

    return Discriminator(kind)


def is_ipv4(value: str) -> bool:
    """Whether a text is an IPv4 address."""
    try:
        IPv4Address(value)
    except ValueError:
        return False
    return True


def is_of_a_machine(value: str) -> bool:
    """Whether a text is no IPv4 address that a machine cannot have, such as 224.0.0.1."""
    return not is_ipv4(value) or all(IPv4Address(value) not in network for network in NOBODYS)


@dataclass(frozen=True, slots=True)
class _Matching:
    """A text that matches a pattern as a whole.

    Attributes:
        pattern: a regular expression that Python and JSON Schema understand alike.
        allowed: what it allows, in words.
    """

    pattern: str
    allowed: str

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        """How pydantic checks it."""
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """How an editor checks it."""
        return handler(schema) | {"pattern": _whole(self.pattern)}

    def _check(self, value: str) -> str:
        if not re.fullmatch(self.pattern, value, re.ASCII):
            raise refused(value, self.allowed)
        return value


def _whole(pattern: str) -> str:
    return f"^({pattern})$"


def _in_schema(pattern: str) -> WithJsonSchema:
    """How an editor checks a text whose own check says more of what is wrong."""
    return WithJsonSchema({"type": "string", "pattern": _whole(pattern)})


def _mirror_host(value: str) -> str:
    if re.fullmatch(rf"auto|{_IPV4}|{_HOST}", value) and is_of_a_machine(value):
        return value
    allowed = "auto, an IPv4 address, or a host name such as host.docker.internal"
    raise refused(value, f"{allowed}, at which nodes reach this machine")


def _remote_url(value: str) -> str:
    """Check an upstream's URL; one slash at its end is dropped."""
    allowed = "http:// or https:// with a host and perhaps a port, such as https://quay.io"
    if "@" in value:
        scheme = re.match(r"[a-zA-Z]*://", value)
        visible = f"{scheme[0] if scheme else ''}[hidden]@{value.rpartition('@')[2]}"
        raise refused(visible, f"{allowed}; credentials go into username and passwords")
    url = re.fullmatch(r"(?P<scheme>https?)://(?P<host>[^/?#]*)(?P<path>.*)", value)
    if url is None or not re.fullmatch(rf"{_HOST_OF_URL}(:{_PORT})?", url["host"]):
        raise refused(value, allowed)
    if url["path"] not in {"", "/"}:
        raise refused(value, f"{allowed}; without a path")
    host = url["host"].partition(":")[0].lower()
    if host == "localhost" or (is_ipv4(host) and IPv4Address(host).is_loopback):
        raise refused(value, f"{allowed}; not loopback, which in a cache is the cache itself")
    if not is_of_a_machine(host):
        raise refused(value, f"{allowed}; with an address that a machine can have")
    return f"{url['scheme']}://{url['host']}"


def _pem(value: str) -> str:
    allowed = "certificates in PEM, from -----BEGIN CERTIFICATE----- on"
    if not re.match(r"-----BEGIN CERTIFICATE-----\s", value):
        raise refused(value[:40], allowed)
    if "PRIVATE KEY-----" in value:
        raise saying(f"found a private key among them; allowed: {allowed}, and no key")
    # Most stacks have none, and reading them takes longer to load than all settings to check.
    from . import certificates  # noqa: PLC0415 - see above

    if not certificates.are_certificates(value):
        raise saying(f"found what cannot be read as certificates; allowed: {allowed}")
    return value


def _address(value: object) -> object:
    if isinstance(value, str) and is_ipv4(value):
        if value != ANY_ADDRESS and not is_of_a_machine(value):
            raise refused(value, "an IPv4 address that a machine can have")
        return value
    raise refused(value, "an IPv4 address")


def _addresses(value: list[str]) -> list[str]:
    """Check the addresses on which ports are opened: none is opened twice."""
    refuse_within(
        Mistake((number,), f"found {address}, which is there already; allowed: each once")
        for number, address in enumerate(value)
        if address in value[:number]
    )
    if ANY_ADDRESS in value and len(value) > 1:
        at = value.index(ANY_ADDRESS)
        text = f"found {ANY_ADDRESS}, which is every address, beside others; allowed: it alone"
        refuse_within([Mistake((at,), text)])
    return value


def _cidr(value: str) -> str:
    try:
        network = IPv4Network(value, strict=False)
    except ValueError:
        raise refused(value, "an IPv4 network such as 10.5.0.0/24") from None
    if network.prefixlen > LONGEST_PREFIX:
        raise refused(value, f"a network with room for nodes: /{LONGEST_PREFIX} or wider")
    if str(network) != value:
        raise refused(value, f"an IPv4 network as it is written, such as {network}")
    if any(network.overlaps(other) for other in NO_NODES):
        raise refused(value, "a network that nodes can have, such as 10.5.0.0/24")
    return value


def _patch(value: object) -> object:
    """Check a patch at once: pydantic would report each type of a union as one mistake."""
    if isinstance(value, dict):
        return value
    if not isinstance(value, str) or not value:
        raise refused(value, "a mapping, or a text that is not empty")
    try:
        documents = list(yaml.safe_load_all(value))
    except (yaml.YAMLError, ValueError, RecursionError):
        raise refused(value, "a mapping, or YAML") from None
    if not all(isinstance(one, dict | list | None) for one in documents) or not any(documents):
        raise refused(value, "a mapping, or YAML with one, or with a list of JSON patch operations")
    return value


def seconds(duration: str) -> float:
    """The seconds of a duration such as `1h30m`."""
    parts = re.findall(r"([0-9.]+)(ms|s|m|h)", duration)
    return sum(float(number) * SECONDS_PER_UNIT[unit] for number, unit in parts)


def mebibytes(size: str) -> int:
    """The MiB of a size such as `512m`, at least one."""
    return max(1, round(_kibibytes(size) / KIB_PER_UNIT["m"]))


def _kibibytes(size: str) -> int:
    return int(size[:-1]) * KIB_PER_UNIT[size[-1]]


def _from_to(
    lowest: str, highest: str, what: str, measure: Callable[[str], float]
) -> AfterValidator:
    """What checks that a text is between two others; `never` is no measure, and passes."""

    def check(value: str) -> str:
        if value != "never" and not measure(lowest) <= measure(value) <= measure(highest):
            raise refused(value, f"{what} from {lowest} to {highest}")
        return value

    return AfterValidator(check)


def _text(value: str) -> str:
    if not value.isprintable() or value != value.strip() or len(value) > LONGEST_TEXT:
        allowed = f"up to {LONGEST_TEXT} printable characters, with no blank at either end"
        raise refused(value, allowed)
    return value


def _argument(value: str) -> str:
    is_right = all(one.isprintable() or one in "\n\t" for one in value)
    if not is_right or len(value) > LONGEST_ARGUMENT:
        raise refused(value, f"up to {LONGEST_ARGUMENT} printable characters, tabs and line ends")
    return value


def _username(value: str) -> str:
    if not value.isprintable() or ":" in value or len(value) > LONGEST_USERNAME:
        raise refused(value, f"up to {LONGEST_USERNAME} printable characters, and no colon")
    return value


def _image(value: str) -> str:
    try:
        image = reference.parse(value)
    except InvalidReferenceError as error:
        raise refused(value, _IMAGE, error) from None
    if image.digest is None and image.tag == MOVING_TAG:
        raise refused(value, f"one with a tag that does not move, or a digest: {_IMAGE}")
    return value


def _port(value: int, info: ValidationInfo) -> int:
    lowest = 1 if (info.context or {}).get("is_root") else LOWEST_UNPRIVILEGED_PORT
    if not lowest <= value <= HIGHEST_PORT:
        hint = "" if lowest == 1 else "; a lower one needs root"
        raise refused(value, f"{lowest} to {HIGHEST_PORT}{hint}")
    return value


_IMAGE = "an image reference such as registry:3.1.2"
MOVING_TAG = "latest"

Address = Annotated[str, BeforeValidator(_address), _in_schema(_IPV4)]
Addresses = Annotated[list[Address], Field(min_length=1), AfterValidator(_addresses)]
Argument = Annotated[str, Field(min_length=1), AfterValidator(_argument)]
Cidr = Annotated[str, AfterValidator(_cidr), _in_schema(rf"{_IPV4}/[12]?[0-9]")]
ClusterName = Annotated[
    str,
    _Matching(
        r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?",
        "up to 40 small letters, digits and dashes, at neither end a dash",
    ),
]
Bucket = Annotated[
    str,
    _Matching(
        rf"(?=.{{3,63}}$)(?!{_IPV4}$){_LABEL}(\.{_LABEL})*",
        "a bucket's name, such as registry-caches",
    ),
]
MirrorHost = Annotated[str, AfterValidator(_mirror_host), _in_schema(rf"auto|{_IPV4}|{_HOST}")]
Image = Annotated[
    str,
    _Matching(r"[a-z0-9][a-zA-Z0-9._/:-]*(@sha256:[0-9a-f]{64})?", _IMAGE),
    AfterValidator(_image),
]
LabelValue = Annotated[
    str, _Matching(r"[a-zA-Z0-9:_./-]{1,128}", "letters, digits and : _ . / -, up to 128")
]
LogSize = Annotated[
    str,
    _Matching(_SIZE, "a number with k, m or g, such as 10m"),
    _from_to("1k", "1024g", "a size", _kibibytes),
]
Memory = Annotated[
    str,
    _Matching(_SIZE, "a number with k, m or g, such as 10m"),
    # Less, and the registry is killed for its memory before it answers.
    _from_to("16m", "1024g", "a size", _kibibytes),
]
MemoryOfNode = Annotated[
    str,
    _Matching(_SIZE, "a number with k, m or g, such as 10m"),
    _from_to("256m", "1024g", "a size", _kibibytes),
]
Name = Annotated[
    str,
    _Matching(
        r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}",
        "letters, digits, dots, dashes and underscores, up to 128, a letter or digit first",
    ),
]
Patch = Annotated[dict[str, Any] | str, PlainValidator(_patch)]
Pem = Annotated[str, AfterValidator(_pem)]
Port = Annotated[
    int,
    Field(strict=True, json_schema_extra={"minimum": 1, "maximum": HIGHEST_PORT}),
    AfterValidator(_port),
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
ServerName = Annotated[
    str,
    _Matching(rf"{_HOST}|localhost|{_IPV4}", "a host name or an IPv4 address"),
]
Timeout = Annotated[
    str,
    _Matching(_DURATION, "a duration such as 20m"),
    _from_to("1s", "168h", "a duration", seconds),
]
Ttl = Annotated[
    str,
    _Matching(rf"never|{_DURATION}", "never, or a duration such as 720h"),
    # A registry takes nothing at all for never, and cannot count further than 292 years.
    _from_to("1ms", "876000h", "never, or a duration", seconds),
]
Text = Annotated[str, Field(min_length=1), AfterValidator(_text)]
Username = Annotated[str, Field(min_length=1), AfterValidator(_username)]
VersionText = Annotated[
    str,
    _Matching(
        r"v?[0-9]{1,5}\.[0-9]{1,5}\.[0-9]{1,5}(-[0-9A-Za-z.-]{1,64})?",
        "a version such as v1.11.5",
    ),
]
