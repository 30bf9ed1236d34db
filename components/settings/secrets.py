"""The secrets of a stack: the keys of its file that are encrypted.

Each is a key of its own (docs/decisions/0002-passwords-are-a-key-of-their-own.md).
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated

from pydantic import BeforeValidator, ConfigDict, Field, SecretStr

from .. import readers
from .mistakes import Mistake, Path, in_yaml, saying
from .model import EACH, Context, Model, Needed, Rules
from .values import checked

VIA = "via"
"""The key of the parent caches' password among those of the upstreams."""


def command(path: Path) -> str:
    """The command that sets the secret at a path, from the terminal or from a file."""
    if len(path) == 1:
        # A terminal is read up to the end of the first line, and this secret has several.
        return f"pulumi config set --secret {in_yaml(path)} < {in_yaml(path)}.pem"
    return f"pulumi config set --secret --path '{in_yaml(path)}'"


def _secret(allowed: str, is_allowed: Callable[[str], bool] = lambda _: True) -> BeforeValidator:
    """Checks a secret, and shows nothing of it."""

    def check(value: object) -> object:
        text = value.get_secret_value() if isinstance(value, SecretStr) else value
        is_text = isinstance(text, str) and text and not re.search("[\ud800-\udfff]", text)
        if not is_text or not is_allowed(str(text)):
            raise saying(f"found [hidden]; allowed: {allowed}")
        return value

    return BeforeValidator(check)


def _is_private_key(pem: str) -> bool:
    # Few stacks have a certificate, and cryptography takes long to load.
    from . import certificates  # noqa: PLC0415 - see above

    return certificates.is_key(pem)


def _needed_key(what: str, key: str) -> Needed:
    return Needed(f"the {what} of the object store, set with {command(('s3Keys', key))}")


Password = Annotated[SecretStr, _secret("a password")]
ReaderName = Annotated[str, checked(readers.is_name, readers.ALLOWED_NAMES)]
ReaderPassword = Annotated[SecretStr, _secret(readers.ALLOWED_PASSWORDS, readers.is_password)]
S3Key = Annotated[
    SecretStr,
    _secret("printable ASCII without spaces", lambda key: bool(re.fullmatch(r"[!-~]+", key))),
]
PrivateKey = Annotated[
    SecretStr, _secret("a private key in PEM, without a password", _is_private_key)
]


class S3Keys(Model):
    """The keys of an object store."""

    model_config = ConfigDict(alias_generator="{}Key".format)

    access: Annotated[S3Key, _needed_key("access key", "accessKey")] = Field(
        description="The access key of the object store, for `caches.storage`"
    )
    secret: Annotated[S3Key, _needed_key("secret key", "secretKey")] = Field(
        description="The secret key of the object store"
    )


# One command for each key, as an example.
_EXAMPLES: Mapping[str, Path] = {
    "passwords": ("passwords", "<upstream>"),
    "readers": ("readers", "<user>"),
    "s3Keys": ("s3Keys", "accessKey"),
    "tlsKey": ("tlsKey",),
}


class Secrets(Model):
    """The secrets of a stack."""

    passwords: Annotated[Mapping[str, Password], EACH] = Field(
        default={},
        description=(
            "Passwords of upstreams that have a `username`, by registry host; under `via`, the "
            "password of `caches.via.username`"
        ),
    )
    readers: Annotated[Mapping[ReaderName, ReaderPassword], EACH] = Field(
        default={},
        description="Passwords of users who may read the caches; without any, everyone may",
    )
    s3_keys: S3Keys | None = Field(default=None, description="The keys of the object store")
    tls_key: PrivateKey | None = Field(
        default=None, description="Private key of `caches.tls.certificate`, in PEM"
    )

    def rules(self, context: Context) -> Rules:
        """The rules of all secrets."""
        return (self._are_encrypted(context),)

    def _are_encrypted(self, context: Context) -> Iterator[Mistake]:
        for name in self.model_fields_set & Secrets.model_fields.keys():
            key = str(Secrets.model_fields[name].alias)
            if key in context.plain:
                how = f"set with {command(_EXAMPLES[key])}"
                yield Mistake((key,), f"found in plain text; allowed: encrypted, {how}")


KEYS = tuple(str(field.alias) for field in Secrets.model_fields.values())
"""The keys of a stack file that are encrypted."""
