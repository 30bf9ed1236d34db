"""The settings of one upstream."""

from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import Field

from talos_registry_cache.registry.catalogue import CATALOGUE

from .access import sent_in_the_clear
from .mistakes import Mistake
from .model import Context, Model, Needed, Rules
from .values import Image, Pem, Port, RemoteUrl, Username


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
        default=None, description="User name at the upstream; its password is in `passwords`"
    )

    def rules(self, context: Context) -> Rules:  # noqa: ARG002 - none of it is needed
        """The password is not sent in the clear."""
        return (self._password_stays_private(),)

    def _password_stays_private(self) -> Iterator[Mistake]:
        if self.username is not None:
            yield from sent_in_the_clear(self.remote_url)


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
