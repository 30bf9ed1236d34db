"""The settings of one upstream."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field

from talos_registry_cache.registry.catalogue import CATALOGUE

from .access import sent_in_the_clear
from .mistakes import Mistake
from .model import Context, Model, Needed, Rules
from .values import Argument, Image, Pem, Port, RemoteUrl, Username


class Upstream(Model):
    """A registry to cache. The catalogue has defaults for well-known registries."""

    port: Annotated[Port, Needed("a port, since this registry has no default port")] = Field(
        description="Port on this machine; most registries of the catalogue have a default"
    )
    remote_url: Annotated[
        RemoteUrl,
        Needed(f"a URL; the registries with a default URL are {', '.join(CATALOGUE)}"),
    ] = Field(description="URL of the registry's API; registries of the catalogue have a default")
    image: Image | None = Field(
        default=None, description="Image of this cache; the default is `caches.image`"
    )
    ca: Pem | None = Field(
        default=None,
        description=(
            "CA of the registry's certificate, in addition to the public CAs: PEM, or a file"
        ),
    )
    username: Username | None = Field(
        default=None,
        description=(
            "User name at the upstream; its password is in `passwords`, or printed by "
            "`passwordCommand`"
        ),
    )
    password_command: Annotated[list[Argument], Field(min_length=1)] | None = Field(
        default=None,
        description=(
            "Command that prints the password in its first line, for short-lived tokens, such as "
            "[aws, ecr, get-login-password]; each `up` runs it on this machine, a preview does not"
        ),
    )
    credentials: Literal["docker"] | None = Field(
        default=None,
        description=(
            "`docker` for the user name and the password of `docker login`, which each `up` reads "
            "on this machine"
        ),
    )

    def rules(self, context: Context) -> Rules:  # noqa: ARG002 - none of it is needed
        """There is one login, which is not sent in the clear."""
        return (self._login_stays_private(), self._login_is_one(), self._command_has_a_username())

    def _login_stays_private(self) -> Iterator[Mistake]:
        for key in ("username", "credentials"):
            if getattr(self, key) is not None:
                yield from sent_in_the_clear(self.remote_url, key=key)

    def _login_is_one(self) -> Iterator[Mistake]:
        if self.credentials is None:
            return
        for key, value in (
            ("username", self.username),
            ("passwordCommand", self.password_command),
        ):
            if value is not None:
                text = "found beside credentials, which is a login by itself"
                yield Mistake((key,), f"{text}; allowed: one of both")

    def _command_has_a_username(self) -> Iterator[Mistake]:
        if self.password_command and self.username is None and self.credentials is None:
            yield Mistake(("passwordCommand",), "found without username; allowed: only with it")


def with_catalogue(upstreams: Any) -> Any:
    """Upstreams as they are written, completed with the defaults of the catalogue."""
    if not isinstance(upstreams, dict):
        return {} if upstreams is None else upstreams
    completed = {}
    for host, written in upstreams.items():
        upstream = {} if written is None else written
        if isinstance(upstream, dict) and host in CATALOGUE:
            known = CATALOGUE[host]
            defaults: dict[str, Any] = {} if known.port is None else {"port": known.port}
            if "remote_url" not in upstream:
                defaults["remoteUrl"] = known.remote_url
            upstream = defaults | upstream
        completed[host] = upstream
    return completed
