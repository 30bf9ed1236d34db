"""The settings of who may use the caches, and of how these reach their upstreams."""

from typing import Annotated, Literal

from pydantic import Field, Tag

from components.settings.values import (
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
