"""Where a registry's images are asked for."""

from collections.abc import Mapping

from registry.errors import EndpointError
from registry.reference import Reference


def endpoint_of(reference: Reference, endpoints: Mapping[str, str]) -> str:
    """The URL that serves an image.

    Args:
        reference: the image.
        endpoints: from a registry's host, such as docker.io, to a URL.

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
