"""The settings of who may use the caches, and of how these reach their upstreams."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, Tag, model_validator

from .mistakes import Mistake, refuse_within
from .values import (
    Model,
    Pem,
    RegistryHost,
    RemoteUrl,
    ServerName,
    Username,
    by_kind,
)


class OwnTls(Model):
    """TLS by an authority that the stack makes for itself; clients have to trust it."""

    kind: Literal["own"] = Field(default="own", description="What this is: the stack's authority")
    names: list[ServerName] = Field(
        default=[],
        description="Host names and addresses beside the mirror host by which clients come",
    )


class GivenTls(Model):
    """TLS by a certificate from elsewhere; its key is in `tlsKey`."""

    kind: Literal["given"] = Field(description="What this is: a certificate from elsewhere")
    certificate: Pem = Field(description="The certificate and those between it and its authority")
    ca: Pem | None = Field(
        default=None, description="The authority's certificate, where clients do not know it"
    )


Tls = Annotated[Annotated[OwnTls, Tag("own")] | Annotated[GivenTls, Tag("given")], by_kind("own")]


def in_the_clear(*urls: str) -> Iterator[Mistake]:
    """What is wrong with a user name at some URLs: its password would go over plain HTTP."""
    for url in urls:
        if url.startswith("http:"):
            text = f"found one for {url}, where its password would go in the clear"
            yield Mistake(("username",), f"{text}; allowed: one with https://")


class Via(Model):
    """The caches of a team as the way to upstreams."""

    mirrors: Annotated[dict[RegistryHost, RemoteUrl], Field(min_length=1)] = Field(
        description="URL of the team's cache, by registry host: the output `mirrors` of its stack"
    )
    ca: Pem | None = Field(
        default=None, description="Certificate of their authority: the output `ca` of their stack"
    )
    username: Username | None = Field(
        default=None, description="User name at them; its password is in `passwords.via`"
    )

    @model_validator(mode="after")
    def _keep_the_password_secret(self) -> "Via":
        if self.username is not None:
            refuse_within(in_the_clear(*self.mirrors.values()))
        return self
