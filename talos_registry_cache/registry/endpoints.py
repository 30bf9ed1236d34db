"""Where a registry's images are asked for."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from talos_registry_cache.registry.errors import EndpointError
from talos_registry_cache.registry.reference import Reference


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A registry that is closed to strangers; one that is open is its URL, a text.

    Attributes:
        url: its URL, http or https, without /v2.
        ca: the certificate of the only authority that it is trusted by, PEM; those that this
            machine trusts where it is left out.
        username: who asks; nobody where it is left out.
        password: the password.
    """

    url: str
    ca: str | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)


Endpoints = Mapping[str, Endpoint | str]
"""From a registry's host, such as docker.io, to what serves it."""


def endpoint_of(reference: Reference, endpoints: Endpoints) -> Endpoint | str:
    """What serves an image.

    Args:
        reference: the image.
        endpoints: what there is to choose from.

    Raises:
        EndpointError: there is none for the image's registry.
    """
    endpoint = endpoints.get(reference.registry)
    if endpoint is None:
        raise EndpointError(
            f"{reference}: nothing serves {reference.registry}; "
            f"served are: {', '.join(sorted(endpoints)) or 'none'}"
        )
    return endpoint
