"""The secrets of a stack: the keys of its file that are encrypted.

Each is a key of its own (docs/decisions/0002-passwords-are-a-key-of-their-own.md).
"""

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from pydantic import ConfigDict, Field, SecretStr

from .. import readers
from .access import GivenTls
from .caches import Caches, upstreams_as_written
from .mistakes import Mistake, Path, in_one_line, in_yaml
from .values import Model

VIA = "via"
# Each key that is a mapping, and what it maps.
MAPPINGS = {
    "passwords": "registry host to password",
    "readers": "user name to password",
    "s3Keys": "accessKey and secretKey",
}
KEYS = (*MAPPINGS, "tlsKey")
S3_KEYS = ("accessKey", "secretKey")

Wanted = Mapping[Path, str]
"""Where a secret has to be, and what it is for."""


class S3Keys(Model):
    """The keys of an object store."""

    model_config = ConfigDict(alias_generator="{}Key".format)

    access: SecretStr = Field(description="The access key")
    secret: SecretStr = Field(description="The secret key")


class Secrets(Model):
    """The secrets of a stack."""

    passwords: Mapping[str, SecretStr] = Field(
        default={},
        description=(
            "The password of each upstream that has a user name, by registry host, and under "
            "`via` that of the parent caches"
        ),
    )
    readers: Mapping[str, SecretStr] = Field(
        default={},
        description="The password of each user who may read the caches; without any, everyone may",
    )
    s3_keys: S3Keys | None = Field(default=None, description="The keys of the object store")
    tls_key: SecretStr | None = Field(
        default=None, description="The private key of `caches.tls.certificate`, in PEM"
    )


def parsed(written: Mapping[str, Any]) -> Secrets:
    """Secrets in which there are no mistakes.

    Args:
        written: the value of each key of `KEYS` that is set.
    """
    return Secrets.model_validate(dict(written))


def mistakes(written: Mapping[str, Any], plain: Collection[str], caches: Any) -> Iterator[Mistake]:
    """What is wrong with the secrets of a stack.

    Args:
        written: the value of each key of `KEYS` that is set.
        plain: the keys that are not encrypted.
        caches: the settings of the caches as written, which say what secrets there have to be.
    """
    no_mappings = {key for key in MAPPINGS if not isinstance(written.get(key, {}), Mapping)}
    for key in sorted(no_mappings):
        yield Mistake((key,), f"found no mapping; allowed: {MAPPINGS[key]}")
    found = _found({key: value for key, value in written.items() if key not in no_mappings})
    wanted = {path: why for path, why in _wanted(caches).items() if path[0] not in no_mappings}
    for path, value in found.items():
        yield from _in_one(path, value, wanted, is_plain=path[0] in plain)
    for path in sorted(wanted.keys() - found.keys(), key=str):
        yield Mistake(path, f"found none, for {wanted[path]}; allowed: one, {_set_with(path)}")
    if written.get("readers") and not _kind(caches, "tls"):
        text = "found without caches.tls; allowed: with it, since passwords would go in the clear"
        yield Mistake(("readers",), text)


def command(path: Path) -> str:
    """The command that sets a secret: it asks for the value, or has it from a file.

    Args:
        path: where it is.
    """
    if len(path) == 1:
        # It has several lines, and a terminal is read up to the first one's end.
        return f"pulumi config set --secret {in_yaml(path)} < {in_yaml(path)}.pem"
    return f"pulumi config set --secret --path '{in_yaml(path)}'"


def in_key(caches: Caches, key: Any) -> Iterator[Mistake]:
    """What is wrong with the key of a given certificate.

    Args:
        caches: the settings of the caches.
        key: the value of `tlsKey`.
    """
    if not isinstance(caches.tls, GivenTls) or not isinstance(key, str) or not key:
        return
    # Few stacks have a certificate, and what reads them takes long to load.
    from . import certificates  # noqa: PLC0415 - see above

    if not certificates.is_key(key):
        text = "found no private key; allowed: one in PEM, which no password protects"
        yield Mistake(("tlsKey",), text)
    elif not certificates.is_key_of(key, caches.tls.certificate):
        text = "found the key of another certificate; allowed: that of caches.tls.certificate"
        yield Mistake(("tlsKey",), text)


def _set_with(path: Path) -> str:
    return f"set with {command(path)}"


def _found(written: Mapping[str, Any]) -> Mapping[Path, Any]:
    found: dict[Path, Any] = {}
    for key, value in written.items():
        if key in MAPPINGS:
            found |= {(key, name): secret for name, secret in value.items()}
        else:
            found[key,] = value
    return found


def _wanted(caches: Any) -> Wanted:
    upstreams = upstreams_as_written(caches).items()
    wanted: dict[Path, str] = {
        ("passwords", host): "its username"
        for host, upstream in upstreams
        if upstream.get("username") is not None
    }
    if _part(caches, VIA).get("username") is not None:
        wanted["passwords", VIA] = "its username"
    if _kind(caches, "storage") == "s3":
        wanted |= {("s3Keys", key): "caches.storage" for key in S3_KEYS}
    if _kind(caches, "tls") == "given":
        wanted["tlsKey",] = "caches.tls.certificate"
    return wanted


def _in_one(path: Path, value: Any, wanted: Wanted, *, is_plain: bool) -> Iterator[Mistake]:
    if is_plain:
        yield Mistake(path, f"found in plain text; allowed: encrypted, {_set_with(path)}")
    if path not in wanted and path[0] != "readers":
        yield Mistake(path, f"found, but {_no_use_for(path)}")
    is_reader = path[0] == "readers"
    if is_reader and not readers.is_name(str(path[-1])):
        yield Mistake(path, f"found no user name; allowed: {readers.ALLOWED_NAMES}")
    if not isinstance(value, str) or not value:
        what = "a password" if path[0] in {"passwords", "readers"} else "a key"
        yield Mistake(path, f"found no text; allowed: {what}")
    elif is_reader and not readers.is_password(value):
        yield Mistake(path, f"found another text; allowed: {readers.ALLOWED_PASSWORDS}")
    elif path[0] == "s3Keys" and not re.fullmatch(r"[!-~]+", value):
        yield Mistake(path, "found another text; allowed: a key, of ASCII without spaces")


def _no_use_for(path: Path) -> str:
    match path:
        case ("passwords", "via"):
            return "caches.via has no username; allowed: beside one"
        case ("passwords", host):
            name = in_one_line(str(host))
            return f"caches.upstreams has no username for {name}; allowed: beside one"
        case ("s3Keys", name) if name not in S3_KEYS:
            return f"it is no key of a store; allowed: {' and '.join(S3_KEYS)}"
        case ("s3Keys", _):
            return "caches.storage is no s3; allowed: beside one"
        case _:
            return "caches.tls has no certificate; allowed: beside one"


def _part(caches: Any, key: str) -> Mapping[str, Any]:
    part = caches.get(key) if isinstance(caches, Mapping) else None
    return part if isinstance(part, Mapping) else {}


def _kind(caches: Any, key: str) -> str | None:
    """The kind of settings as written; TLS that does not say is the stack's own."""
    if not isinstance(caches, Mapping) or not isinstance(caches.get(key), Mapping):
        return None
    return str(caches[key].get("kind", "own" if key == "tls" else ""))
