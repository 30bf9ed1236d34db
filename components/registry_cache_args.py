"""RegistryCacheArgs: the arguments of `RegistryCache`, checked like a stack file."""

from collections.abc import Awaitable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import pulumi
from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    PlainValidator,
    SecretStr,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    WrapValidator,
)

from talos_registry_cache.registry.reference import Reference

from .settings import Caches, StackSettings
from .settings.images import ImageReference
from .settings.mistakes import Mistake, refused, saying
from .settings.model import Context, Model

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


def _pinned(value: Reference) -> Reference:
    if not (value.tag and value.digest):
        raise refused(str(value), "an image with tag and digest")
    return value


PinnedImage = Annotated[ImageReference, AfterValidator(_pinned)]


class S3KeysArgs(Model):
    """Keys of an object store."""

    model_config = ConfigDict(arbitrary_types_allowed=True, from_attributes=True)

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
    kept_images: list[ImageReference] = Field(
        default=[], description="Images that `retention` never removes"
    )
    pinned_images: list[PinnedImage] = Field(
        default=[],
        description="Images with tag and digest: the caches answer the tag with this digest, "
        "without asking the upstream",
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
            context = Context(pulumi.get_stack())
            validator = self.__pydantic_validator__
            try:
                validator.validate_python(values, self_instance=self, context=context)
            except ValidationError as error:
                raise ArgumentsError(_mistakes(error)) from None
            self._check_secrets(context)

    def password(self, key: str) -> pulumi.Output[str]:
        """The password of an upstream, or of the parent caches."""
        return output(self.passwords).apply(lambda passwords: str(passwords[key]))

    def _check_secrets(self, context: Context) -> None:
        """Apply the rules of a stack file, except to secrets that are not known yet."""
        secrets = {
            "passwords": self.passwords,
            "readers": self.readers,
            "s3Keys": self.s3_keys,
            "tlsKey": self.tls_key,
        }
        later = {key for key, value in secrets.items() if isinstance(value, pulumi.Output)}
        written = {key: _written(value) for key, value in secrets.items() if key not in later}
        written = {key: value for key, value in written.items() if value}
        try:
            StackSettings.model_validate({"caches": self, **written}, context=context)
        except ValidationError as error:
            found = [one for one in _mistakes(error) if one.path[0] not in later]
            if found:
                raise ArgumentsError(found) from None


def _mistakes(error: ValidationError) -> list[Mistake]:
    found = [Mistake(line["loc"], line["msg"]) for line in error.errors()]
    return [Mistake(one.path[1:], one.text) if one.path[0] == "caches" else one for one in found]


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
