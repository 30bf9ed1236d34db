"""The settings of the HTTP proxy through which caches reach their upstreams."""

import contextvars
from collections.abc import Iterator, Mapping
from typing import Annotated, Literal
from urllib.request import getproxies_environment

from pydantic import Field, Tag, ValidationError

from .mistakes import Mistake
from .model import Context, Model, Rules, by_kind
from .values import NoProxy, Pem, ProxyUrl


class GivenProxy(Model):
    """A given proxy, such as a company's. `{}` is none."""

    kind: Literal["given"] = Field(default="given", description="A given proxy")
    http: ProxyUrl | None = Field(
        default=None, description="URL of the proxy for upstreams with http://"
    )
    https: ProxyUrl | None = Field(
        default=None, description="URL of the proxy for upstreams with https://"
    )
    no_proxy: list[NoProxy] = Field(
        default=[],
        description=(
            "Hosts, domains, addresses and networks that are reached directly, such as corp.example"
        ),
    )
    ca: Pem | None = Field(
        default=None,
        description="CA of a proxy that inspects TLS, for all caches: PEM, or a file",
    )

    def variables(self) -> Mapping[str, str]:
        """The environment variables for a registry."""
        found = {
            "HTTP_PROXY": self.http,
            "HTTPS_PROXY": self.https,
            "NO_PROXY": ",".join(self.no_proxy),
        }
        return {name: value for name, value in found.items() if value}


class EnvironmentProxy(Model):
    """The proxy in HTTP_PROXY, HTTPS_PROXY and NO_PROXY of the shell that runs `up`."""

    kind: Literal["environment"] = Field(
        description="The proxy in the environment variables of `up`"
    )
    ca: Pem | None = Field(
        default=None,
        description="CA of a proxy that inspects TLS, for all caches: PEM, or a file",
    )

    def rules(self, context: Context) -> Rules:  # noqa: ARG002 - none of it is needed
        """The environment has proxies that caches can use."""
        return (self._environment_is_right(),)

    def _environment_is_right(self) -> Iterator[Mistake]:
        try:
            in_environment()
        except ValidationError as error:
            for line in error.errors():
                text = line["msg"].replace("; allowed:", " in the environment; allowed:", 1)
                yield Mistake(line["loc"], text)

    def variables(self) -> Mapping[str, str]:
        """The environment variables for a registry."""
        return in_environment().variables()


Proxy = Annotated[
    Annotated[GivenProxy, Tag("given")] | Annotated[EnvironmentProxy, Tag("environment")],
    by_kind("given"),
]


def in_environment() -> GivenProxy:
    """The proxy in the environment variables of this process, in upper or lower case.

    Raises:
        ValidationError: caches cannot use it.
    """
    found = getproxies_environment()
    urls = {
        scheme: url if "://" in url else f"http://{url}"
        for scheme, url in found.items()
        if scheme in {"http", "https"}
    }
    excepted = [one.strip() for one in found.get("no", "").split(",") if one.strip()]
    # Models add their mistakes to those of the model that is being checked, if there is one.
    return contextvars.Context().run(GivenProxy.model_validate, {**urls, "noProxy": excepted})
