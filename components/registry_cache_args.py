"""RegistryCacheArgs: the arguments of `RegistryCache`, checked like a stack file."""

import os
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import pulumi
from pydantic import (
    ConfigDict,
    Field,
    PlainValidator,
    SecretStr,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    WrapValidator,
    create_model,
)
from pydantic_core import ErrorDetails

from .settings import Caches
from .settings.caches import across_upstreams, within_caches
from .settings.mistakes import Mistake, from_pydantic, saying
from .settings.secrets import MAPPINGS, in_key
from .settings.secrets import mistakes as in_secrets
from .settings.values import Model

KNOWN_LATER = "known-later"


class ArgumentsError(pulumi.RunError):
    """Arguments have mistakes; the message lists them all.

    Attributes:
        mistakes: each mistake, with its path.
    """

    def __init__(self, mistakes: Sequence[Mistake]) -> None:
        self.mistakes = mistakes
        lines = "".join(f"\n  {mistake}" for mistake in mistakes)
        super().__init__(f"RegistryCache has wrong arguments, nothing was changed:{lines}")


def _secret(value: Any) -> Any:
    """A secret as it is kept: never as a plain string, which a traceback could show."""
    if isinstance(value, str):
        return SecretStr(value)
    if isinstance(value, SecretStr | pulumi.Output | Awaitable):
        return value
    raise saying("found neither a text nor an output; allowed: one of them")


def _or_output(value: Any, check: ValidatorFunctionWrapHandler) -> Any:
    return value if isinstance(value, pulumi.Output) else check(value)


SecretInput = Annotated[
    SecretStr | str | Awaitable[str] | pulumi.Output[str],
    PlainValidator(_secret),
    WithJsonSchema({"type": "string", "writeOnly": True}),
]


class S3KeysArgs(Model):
    """Keys of an object store."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    access: SecretInput = Field(alias="accessKey", description="The access key")
    secret: SecretInput = Field(alias="secretKey", description="The secret key")


if TYPE_CHECKING:
    Secrets = Mapping[str, SecretInput] | pulumi.Output[Mapping[str, str]]
    S3Keys = S3KeysArgs | pulumi.Output[Mapping[str, str]]
else:
    # A union would report a mistake once for each of its types.
    Secrets = Annotated[Mapping[str, SecretInput], WrapValidator(_or_output)]
    S3Keys = Annotated[S3KeysArgs, WrapValidator(_or_output)]


class RegistryCacheArgs(Caches):
    """The settings of the caches, as below `caches` in a stack file, and the secrets they need.

    Settings are plain values, since they decide which resources exist. Secrets may be outputs.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    passwords: Secrets = Field(
        default={},
        description=(
            "Password of each upstream that has a `username`, by registry host; `via` has that of "
            "`via.username`"
        ),
    )
    readers: Secrets = Field(
        default={},
        description="Password of each user who may read, by user name; everyone may by default",
    )
    s3_keys: S3Keys | None = Field(
        default=None, description="Keys of the object store, for `storage`"
    )
    tls_key: SecretInput | None = Field(
        default=None, description="Private key of `tls.certificate`, in PEM"
    )

    if not TYPE_CHECKING:

        def __init__(self, **values: Any) -> None:
            """Check the arguments.

            Raises:
                ArgumentsError: they have mistakes.
            """
            is_root = os.name == "posix" and os.geteuid() == 0
            context = {"is_root": is_root, "stack": pulumi.get_stack()}
            validator = self.__pydantic_validator__
            try:
                validator.validate_python(values, self_instance=self, context=context)
            except ValidationError as error:
                raise ArgumentsError([_mistake(line) for line in error.errors()]) from None
            if mistakes := [*self._mistakes()]:
                raise ArgumentsError(mistakes)

    def password(self, key: str) -> pulumi.Output[str]:
        """The password of an upstream, or of the parent caches."""
        return output(self.passwords).apply(lambda passwords: str(passwords[key]))

    def _mistakes(self) -> Iterator[Mistake]:
        """Mistakes in values that are right on their own but do not fit together."""
        caches = self.model_dump(by_alias=True, include=set(Caches.model_fields))
        secrets = {
            "passwords": self.passwords,
            "readers": self.readers,
            "s3Keys": self.s3_keys,
            "tlsKey": self.tls_key,
        }
        later = {key for key in MAPPINGS if isinstance(secrets[key], pulumi.Output)}
        written = {key: _written(value) for key, value in secrets.items() if key not in later}
        written = {key: value for key, value in written.items() if value}
        found = [
            *across_upstreams(caches["upstreams"]),
            *within_caches(self),
            *(one for one in in_secrets(written, (), caches) if one.path[0] not in later),
        ]
        if isinstance(self.tls_key, SecretStr):
            found += in_key(self, self.tls_key.get_secret_value())
        for mistake in found:
            path = mistake.path[1:] if mistake.path[0] == "caches" else mistake.path
            yield Mistake(path, mistake.text)


def _mistake(error: ErrorDetails) -> Mistake:
    # A stack file, from which mistakes take their paths; it is made only when there is a mistake.
    stack_file = create_model("StackFile", caches=(RegistryCacheArgs, ...), __base__=Model)
    found = from_pydantic({**error, "loc": ("caches", *error["loc"])}, stack_file)
    return Mistake(found.path[1:], found.text)


def output(secret: Any) -> pulumi.Output[Any]:
    """A secret argument, or several, as an output that Pulumi encrypts."""
    return pulumi.Output.secret(_unwrapped(secret))


def _written(secret: Any) -> Any:
    """A secret as a stack file would have it; any text for one that is not known yet."""
    plain = _unwrapped(secret)
    if isinstance(plain, dict):
        return {key: _written(value) for key, value in plain.items()}
    return plain if isinstance(plain, str | None) else KNOWN_LATER


def _unwrapped(secret: Any) -> Any:
    match secret:
        case SecretStr():
            return secret.get_secret_value()
        case S3KeysArgs():
            return {"accessKey": _unwrapped(secret.access), "secretKey": _unwrapped(secret.secret)}
        case Mapping():
            return {key: _unwrapped(value) for key, value in secret.items()}
        case _:
            return secret
