"""The settings of TLS, and of the parent caches."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, Tag

from .mistakes import Mistake
from .model import Context, Model, Rules, by_kind
from .values import Pem, RegistryHost, RemoteUrl, ServerName, Username


class OwnTls(Model):
    """TLS with a certificate authority of the stack's own, which clients have to trust."""

    kind: Literal["own"] = Field(
        default="own", description="A certificate authority of the stack's own"
    )
    names: list[ServerName] = Field(
        default=[],
        description="Host names and addresses of the caches, in addition to `caches.mirrorHost`",
    )


class GivenTls(Model):
    """TLS with a given certificate. Its private key is in `tlsKey`."""

    kind: Literal["given"] = Field(description="A given certificate")
    certificate: Pem = Field(
        description="The certificate, followed by any intermediate certificates: PEM, or a file"
    )
    ca: Pem | None = Field(
        default=None,
        description="Certificate of its authority, if clients lack it: PEM, or a file",
    )


Tls = Annotated[Annotated[OwnTls, Tag("own")] | Annotated[GivenTls, Tag("given")], by_kind("own")]


def sent_in_the_clear(*urls: str, key: str = "username") -> Iterator[Mistake]:
    """The mistakes of a login at URLs of plain HTTP.

    Args:
        urls: the URLs.
        key: the key of the login.
    """
    for url in urls:
        if url.startswith("http:"):
            text = f"found with {url}, which would send the password in the clear"
            yield Mistake((key,), f"{text}; allowed: only with https://")


class Via(Model):
    """Parent caches, such as a team's, to pull from instead of the upstreams."""

    mirrors: Annotated[dict[RegistryHost, RemoteUrl], Field(min_length=1)] = Field(
        description=(
            "URLs of parent caches, by registry host: the output `mirrors` of their stack, without "
            "`*`"
        )
    )
    ca: Pem | None = Field(
        default=None,
        description="CA of the parent caches, the output `ca` of their stack: PEM, or a file",
    )
    username: Username | None = Field(
        default=None,
        description="User name at the parent caches; its password is in `passwords.via`",
    )

    def rules(self, context: Context) -> Rules:  # noqa: ARG002 - none of it is needed
        """The password is not sent in the clear."""
        return (self._password_stays_private(),)

    def _password_stays_private(self) -> Iterator[Mistake]:
        if self.username is not None:
            yield from sent_in_the_clear(*self.mirrors.values())
