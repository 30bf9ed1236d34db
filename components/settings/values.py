"""The kinds of values that settings have, each with its rule."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Annotated, Any

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
)
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import core_schema

from components.settings.mistakes import refused

LOWEST_UNPRIVILEGED_PORT = 1024
HIGHEST_PORT = 65535
LONGEST_PREFIX = 29
MIB_PER_UNIT = {"k": 1 / 1024, "m": 1, "g": 1024}
SECONDS_PER_UNIT = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}

_HOST = r"([a-z0-9]([a-z0-9-]*[a-z0-9])?\.)+[a-z0-9-]*[a-z][a-z0-9-]*"
_DURATION = r"(\d+(\.\d+)?(ms|s|m|h))+"


class Model(BaseModel):
    """Settings that cannot be changed, with keys in camelCase and no others."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, validate_default=False
    )


def by_kind(default: str) -> Discriminator:
    """What tells settings of several kinds apart: their key `kind`.

    Args:
        default: the kind of those that do not say.
    """

    def kind(value: Any) -> Any:
        is_written = isinstance(value, Mapping)
        return str(value.get("kind", default) if is_written else getattr(value, "kind", default))

    return Discriminator(kind)


def is_ipv4(value: str) -> bool:
    """Whether a text is an IPv4 address."""
    try:
        IPv4Address(value)
    except ValueError:
        return False
    return True


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
        return handler(schema) | {"pattern": f"^({self.pattern})$"}

    def _check(self, value: str) -> str:
        if not re.fullmatch(self.pattern, value, re.ASCII):
            raise refused(value, self.allowed)
        return value


def _mirror_host(value: str) -> str:
    if value == "auto" or is_ipv4(value) or re.fullmatch(_HOST, value):
        return value
    raise refused(value, "auto, an IPv4 address, or a host name such as host.docker.internal")


def _remote_url(value: str) -> str:
    """Check an upstream's URL; one slash at its end is dropped."""
    allowed = "http:// or https:// with a host and perhaps a port, such as https://quay.io"
    if "@" in value:
        scheme = re.match(r"[a-zA-Z]*://", value)
        visible = f"{scheme[0] if scheme else ''}[hidden]@{value.rpartition('@')[2]}"
        raise refused(visible, f"{allowed}; credentials go into username and passwords")
    url = re.fullmatch(r"(?P<scheme>[a-z]+)://(?P<host>[^/?#]*)(?P<path>.*)", value)
    if url is None or url["scheme"] not in {"http", "https"}:
        raise refused(value, allowed)
    if not re.fullmatch(r"[a-zA-Z0-9.-]+(:[0-9]{1,5})?", url["host"]):
        raise refused(value, allowed)
    if url["path"] not in {"", "/"}:
        raise refused(value, f"{allowed}; without a path")
    return f"{url['scheme']}://{url['host']}"


def _pem(value: str) -> str:
    if not re.match(r"-----BEGIN CERTIFICATE-----\s", value):
        raise refused(value[:40], "certificates in PEM, from -----BEGIN CERTIFICATE----- on")
    return value


def _address(value: object) -> object:
    if isinstance(value, str) and is_ipv4(value):
        return value
    raise refused(value, "an IPv4 address")


def _cidr(value: str) -> str:
    try:
        network = IPv4Network(value)
    except ValueError as error:
        raise refused(value, f"an IPv4 network such as 10.5.0.0/24 ({error})") from None
    if network.prefixlen > LONGEST_PREFIX:
        raise refused(value, f"a network with room for nodes: /{LONGEST_PREFIX} or wider")
    return value


def _patch(value: object) -> object:
    """Check a patch at once: pydantic would report each type of a union as one mistake."""
    if isinstance(value, dict) or (isinstance(value, str) and value):
        return value
    raise refused(value, "a mapping, or a text that is not empty")


def seconds(duration: str) -> float:
    """The seconds of a duration such as `1h30m`."""
    parts = re.findall(r"([0-9.]+)(ms|s|m|h)", duration)
    return sum(float(number) * SECONDS_PER_UNIT[unit] for number, unit in parts)


def mebibytes(size: str) -> int:
    """The MiB of a size such as `512m`, at least one."""
    return max(1, round(int(size[:-1]) * MIB_PER_UNIT[size[-1]]))


def _port(value: int, info: ValidationInfo) -> int:
    lowest = 1 if (info.context or {}).get("is_root") else LOWEST_UNPRIVILEGED_PORT
    if not lowest <= value <= HIGHEST_PORT:
        hint = "" if lowest == 1 else "; a lower one needs root"
        raise refused(value, f"{lowest} to {HIGHEST_PORT}{hint}")
    return value


Address = Annotated[str, BeforeValidator(_address)]
Cidr = Annotated[str, AfterValidator(_cidr)]
ClusterName = Annotated[
    str,
    _Matching(
        r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?",
        "up to 40 small letters, digits and dashes, at neither end a dash",
    ),
]
Bucket = Annotated[
    str, _Matching(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", "a bucket's name, such as registry-caches")
]
Duration = Annotated[str, _Matching(_DURATION, "a duration such as 20m")]
MirrorHost = Annotated[str, AfterValidator(_mirror_host)]
Image = Annotated[
    str,
    _Matching(
        r"[a-z0-9][a-zA-Z0-9._/:-]*(@sha256:[0-9a-f]{64})?",
        "an image reference such as registry:3.1.2",
    ),
]
Name = Annotated[
    str, _Matching(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*", "letters, digits, dots, dashes and underscores")
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
        rf"({_HOST}|localhost|(\d{{1,3}}\.){{3}}\d{{1,3}})(:\d{{1,5}})?",
        "a registry host such as quay.io",
    ),
]
RemoteUrl = Annotated[str, AfterValidator(_remote_url)]
ServerName = Annotated[
    str,
    _Matching(rf"{_HOST}|localhost|(\d{{1,3}}\.){{3}}\d{{1,3}}", "a host name or an IPv4 address"),
]
Size = Annotated[str, _Matching(r"[1-9]\d*[kmg]", "a number with k, m or g, such as 10m")]
Ttl = Annotated[str, _Matching(rf"never|{_DURATION}", "never, or a duration such as 720h")]
Text = Annotated[str, Field(min_length=1)]
Username = Annotated[str, Field(min_length=1)]
VersionText = Annotated[
    str, _Matching(r"v?\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?", "a version such as v1.11.5")
]
