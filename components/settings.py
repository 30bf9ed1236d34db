"""The settings of a stack, as people write them in Pulumi.<stack>.yaml.

The one place that reads `pulumi.Config`. What is wrong is reported before anything is touched:
all mistakes at once, each with its path in the YAML, what was found and what is allowed.
"""

import difflib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Annotated, Any, Literal, get_args

import pulumi
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails, PydanticCustomError

from components.upstreams import CATALOGUE

DEFAULT_IMAGE = "registry:3.1.2"
LOWEST_UNPRIVILEGED_PORT = 1024
HIGHEST_PORT = 65535

_HOST = r"([a-z0-9]([a-z0-9-]*[a-z0-9])?\.)+[a-z0-9-]*[a-z][a-z0-9-]*"
_DURATION = r"(\d+(\.\d+)?(ms|s|m|h))+"


# What pydantic allows, in the words of YAML.
_ALLOWED = {
    "dict_type": "a mapping",
    "int_type": "a whole number",
    "list_type": "a list",
    "model_type": "a mapping",
    "string_too_short": "a text that is not empty",
    "string_type": "a text",
    "too_short": "one or more",
}


class SettingsError(Exception):
    """The stack's settings have mistakes; the message lists them all."""


def _refused(found: object, allowed: str) -> PydanticCustomError:
    return PydanticCustomError(
        "refused", "found {found}; allowed: {allowed}", {"found": _shown(found), "allowed": allowed}
    )


def _shown(found: object) -> str:
    """What was found, without the credentials that a URL in it may have."""
    return re.sub(r"(?<=://).*@", "[hidden]@", repr(found))


def _matching(pattern: str, allowed: str) -> AfterValidator:
    compiled = re.compile(pattern, re.ASCII)

    def check(value: str) -> str:
        if not compiled.fullmatch(value):
            raise _refused(value, allowed)
        return value

    return AfterValidator(check)


def is_ipv4(value: str) -> bool:
    """Whether a text is an IPv4 address."""
    try:
        IPv4Address(value)
    except ValueError:
        return False
    return True


def _mirror_host(value: str) -> str:
    if value == "auto" or is_ipv4(value) or re.fullmatch(_HOST, value):
        return value
    raise _refused(value, "auto, an IPv4 address, or a host name such as host.docker.internal")


def _remote_url(value: str) -> str:
    """Check an upstream's URL; one slash at its end is dropped."""
    allowed = "http:// or https:// with a host and perhaps a port, such as https://quay.io"
    if "@" in value:
        scheme = re.match(r"[a-zA-Z]*://", value)
        visible = f"{scheme[0] if scheme else ''}[hidden]@{value.rpartition('@')[2]}"
        raise _refused(visible, f"{allowed}; credentials go into username and passwords")
    url = re.fullmatch(r"(?P<scheme>[a-z]+)://(?P<host>[^/?#]*)(?P<path>.*)", value)
    if url is None or url["scheme"] not in {"http", "https"}:
        raise _refused(value, allowed)
    if not re.fullmatch(r"[a-zA-Z0-9.-]+(:[0-9]{1,5})?", url["host"]):
        raise _refused(value, allowed)
    if url["path"] not in {"", "/"}:
        raise _refused(value, f"{allowed}; without a path")
    return f"{url['scheme']}://{url['host']}"


def _address(value: object) -> object:
    if isinstance(value, str) and is_ipv4(value):
        return value
    raise _refused(value, "an IPv4 address")


def _port(value: int, info: ValidationInfo) -> int:
    lowest = 1 if (info.context or {}).get("is_root") else LOWEST_UNPRIVILEGED_PORT
    if not lowest <= value <= HIGHEST_PORT:
        hint = "" if lowest == 1 else "; a lower one needs root"
        raise _refused(value, f"{lowest} to {HIGHEST_PORT}{hint}")
    return value


Address = Annotated[str, BeforeValidator(_address)]
MirrorHost = Annotated[str, AfterValidator(_mirror_host)]
Image = Annotated[
    str,
    _matching(
        r"[a-z0-9][a-zA-Z0-9._/:-]*(@sha256:[0-9a-f]{64})?",
        "an image reference such as registry:3.1.2",
    ),
]
Name = Annotated[
    str, _matching(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*", "letters, digits, dots, dashes and underscores")
]
Port = Annotated[int, Field(strict=True), AfterValidator(_port)]
RegistryHost = Annotated[
    str,
    _matching(
        rf"({_HOST}|localhost|(\d{{1,3}}\.){{3}}\d{{1,3}})(:\d{{1,5}})?",
        "a registry host such as quay.io",
    ),
]
RemoteUrl = Annotated[str, AfterValidator(_remote_url)]
Size = Annotated[str, _matching(r"[1-9]\d*[kmg]", "a number with k, m or g, such as 10m")]
Ttl = Annotated[str, _matching(rf"never|{_DURATION}", "never, or a duration such as 720h")]
Username = Annotated[str, Field(min_length=1)]


class _Model(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, validate_default=False
    )


class Upstream(_Model):
    """One registry that is cached. What it leaves out comes from the catalogue."""

    port: Port = Field(
        description="Port on this machine; most registries of the catalogue have a customary one",
    )
    remote_url: RemoteUrl = Field(
        description="Where the registry's API is; a registry of the catalogue has one",
    )
    image: Image | None = Field(
        default=None, description="Image of this cache, where it differs from the stack's"
    )
    username: Username | None = Field(
        default=None, description="User name at the upstream; its password is in `passwords`"
    )


class Storage(_Model):
    """Where a stack keeps what it has cached: one volume for each upstream."""

    volume_prefix: Name | None = Field(
        default=None,
        description="Volumes are named `<volumePrefix>-<upstream>`; the default is namePrefix",
    )
    on_destroy: Literal["keep", "delete"] = Field(
        default="keep", description="Whether `pulumi destroy` keeps the volumes or deletes them"
    )


class Logs(_Model):
    """The log of each cache, as `docker logs` shows it."""

    level: Literal["error", "warn", "info", "debug"] = Field(
        default="info", description="The least severe level that is logged"
    )
    max_size: Size = Field(default="10m", description="Size at which a log file is rotated")
    max_files: Annotated[int, Field(strict=True, ge=1, le=100)] = Field(
        default=3, description="Number of rotated log files that are kept"
    )


class Caches(_Model):
    """The caching proxies of a stack."""

    upstreams: Annotated[dict[RegistryHost, Upstream], Field(min_length=1)] = Field(
        description="The registries that are cached, by registry host"
    )
    image: Image = Field(default=DEFAULT_IMAGE, description="Image of the caches")
    name_prefix: Name | None = Field(
        default=None,
        description=(
            "Containers are named `<namePrefix>-<upstream>`; the default is `registry-<stack>`"
        ),
    )
    storage: Storage = Field(default=Storage(), description="Where the cached images are kept")
    ttl: Ttl = Field(default="never", description="How long what is cached is kept, such as 720h")
    mirror_host: MirrorHost = Field(
        default="auto",
        description=(
            "Address at which nodes reach this machine; `auto` is the docker bridge's gateway, "
            "or host.docker.internal where the engine runs in a virtual machine"
        ),
    )
    publish_on: Annotated[list[Address], Field(min_length=1)] | None = Field(
        default=None,
        description=(
            "Addresses of this machine on which the ports are open; the default is 127.0.0.1 and "
            "the mirror host, if that is an address"
        ),
    )
    logs: Logs = Field(default=Logs(), description="Logging of the caches")
    memory_limit: Size = Field(default="512m", description="Memory limit of each cache")

    @field_validator("upstreams", mode="before")
    @classmethod
    def _fill_from_catalogue(cls, value: Any) -> Any:
        if value is None:
            return {}
        return _with_catalogue(value) if isinstance(value, Mapping) else value


@dataclass(frozen=True, slots=True)
class StackSettings:
    """All that a stack is configured with.

    Attributes:
        stack: the stack's name.
        caches: its caching proxies.
        passwords: the password of each upstream that has a user name, by registry host.
    """

    stack: str
    caches: Caches
    passwords: Mapping[str, SecretStr]


@dataclass(frozen=True, slots=True)
class _Mistake:
    path: tuple[str | int, ...]
    text: str

    def __str__(self) -> str:
        return f"{_in_yaml(self.path)}: {self.text}"


def load() -> StackSettings:
    """Read the settings of the stack that is running.

    Raises:
        SettingsError: they have mistakes.
    """
    config = pulumi.Config()
    return parse(
        pulumi.get_stack(),
        caches=_object(config, "caches"),
        # Not get_secret_object: an Output cannot be checked before anything is declared.
        passwords=_object(config, "passwords"),
        passwords_are_secret=pulumi.runtime.is_config_secret(config.full_key("passwords")),
        is_root=os.name == "posix" and os.geteuid() == 0,
    )


def parse(
    stack: str,
    *,
    caches: Any,
    passwords: Any = None,
    passwords_are_secret: bool = True,
    is_root: bool = False,
) -> StackSettings:
    """Check the values of the configuration keys of a stack.

    Args:
        stack: the stack's name.
        caches: the value of the key `caches`.
        passwords: the value of the key `passwords`.
        passwords_are_secret: whether that value is encrypted in the stack file.
        is_root: whether ports below 1024 may be used.

    Raises:
        SettingsError: the values have mistakes.
    """
    mistakes: list[_Mistake] = []
    parsed: Caches | None = None
    try:
        parsed = Caches.model_validate(caches or {}, context={"is_root": is_root})
    except ValidationError as error:
        mistakes += [_from_pydantic(line) for line in error.errors()]
    mistakes += _across_upstreams(_upstreams(caches))
    mistakes += _in_passwords(passwords, _upstreams(caches), are_secret=passwords_are_secret)
    if mistakes or parsed is None:
        lines = "\n".join(f"  {mistake}" for mistake in mistakes)
        raise SettingsError(f"Pulumi.{stack}.yaml has mistakes, nothing was changed:\n{lines}")
    secrets = {host: SecretStr(password) for host, password in (passwords or {}).items()}
    return StackSettings(stack, parsed, secrets)


def _object(config: pulumi.Config, key: str) -> Any:
    """The value of a key, or its text where that is no object: `parse` says what is wrong."""
    try:
        return config.get_object(key)
    except pulumi.ConfigTypeError:
        return config.get(key)


def _with_catalogue(upstreams: Mapping[str, Any]) -> dict[str, Any]:
    """Upstreams as written, completed with what the catalogue knows of their registries."""
    completed = {}
    for host, upstream in upstreams.items():
        # `docker.io:` with nothing behind it is YAML for null.
        written = {} if upstream is None else upstream
        known = _known(host) if isinstance(written, Mapping) else {}
        completed[host] = {**known, **written} if isinstance(written, Mapping) else written
    return completed


def _known(host: str) -> dict[str, Any]:
    known = CATALOGUE.get(host)
    if known is None:
        return {}
    port = {} if known.port is None else {"port": known.port}
    return {"remoteUrl": known.remote_url} | port


def _upstreams(caches: Any) -> dict[str, Mapping[str, Any]]:
    """The upstreams of settings that may have mistakes: those that are mappings."""
    found = caches.get("upstreams") if isinstance(caches, Mapping) else None
    if not isinstance(found, Mapping):
        return {}
    completed = _with_catalogue(found).items()
    return {host: upstream for host, upstream in completed if isinstance(upstream, Mapping)}


def _across_upstreams(upstreams: Mapping[str, Mapping[str, Any]]) -> Iterator[_Mistake]:
    users: dict[Any, str] = {}
    for host, upstream in upstreams.items():
        port = upstream.get("port")
        if isinstance(port, int) and users.setdefault(port, host) != host:
            path = ("caches", "upstreams", host, "port")
            yield _Mistake(path, f"found {port}, which {users[port]} has; allowed: a free one")


def _in_passwords(
    passwords: Any, upstreams: Mapping[str, Mapping[str, Any]], *, are_secret: bool
) -> Iterator[_Mistake]:
    if passwords is not None and not isinstance(passwords, Mapping):
        yield _Mistake(("passwords",), "found no mapping; allowed: registry host to password")
        return
    with_user = {
        host for host, upstream in upstreams.items() if upstream.get("username") is not None
    }
    for host, password in (passwords or {}).items():
        path = ("passwords", host)
        if not are_secret:
            yield _Mistake(path, f"found in plain text; allowed: encrypted, set with {_set(host)}")
        if host not in with_user:
            yield _Mistake(path, f"found, but caches.upstreams has no username for {host}")
        if not isinstance(password, str) or not password:
            yield _Mistake(path, "found no text; allowed: a password")
    for host in sorted(with_user - set(passwords or {})):
        yield _Mistake(("passwords", host), f"missing, for its username; set it with {_set(host)}")


def _set(host: str) -> str:
    return f"pulumi config set --secret --path 'passwords[\"{host}\"]'"


def _from_pydantic(error: ErrorDetails) -> _Mistake:
    path = ("caches", *(part for part in error["loc"] if part != "[key]"))
    match error["type"]:
        case "refused":
            text = error["msg"]
        case "extra_forbidden":
            text = _unknown_key(str(error["loc"][-1]), _keys(error["loc"][:-1]))
        case "missing" | "too_short" if error["loc"] == ("upstreams",):
            text = "found none; allowed: one upstream or more, such as docker.io: {port: 5000}"
        case "missing" if error["loc"][-1] == "remoteUrl":
            text = f"missing; only the catalogue's registries have one: {', '.join(CATALOGUE)}"
        case "missing":
            text = "missing; this registry has no customary one"
        case kind:
            rule = _ALLOWED.get(kind) or error["msg"].removeprefix("Input should be ")
            text = f"found {_shown(error['input'])}; allowed: {rule}"
    return _Mistake(path, text)


def _unknown_key(key: str, known: list[str]) -> str:
    close = difflib.get_close_matches(key, known, n=1)
    meant = f" (did you mean {close[0]}?)" if close else ""
    return f"unknown key{meant}; allowed: {', '.join(known)}"


def _keys(path: tuple[str | int, ...]) -> list[str]:
    """The keys that a model within the settings has."""
    model: type[BaseModel] = Caches
    for part in path:
        fields = {field.alias: field for field in model.model_fields.values()}
        if part in fields:
            model = _model_within(fields[str(part)].annotation) or model
    return [str(field.alias) for field in model.model_fields.values()]


def _model_within(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_model_within, get_args(annotation))), None)


def _in_yaml(path: tuple[str | int, ...]) -> str:
    """A path as `pulumi config set --path` takes it, below the project's name."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", part):
            text += f".{part}" if text else part
        else:
            text += '["{}"]'.format(part.replace('"', '\\"'))
    return text
