"""Images to run: the official ones in the settings, or those that were built here in their place.

`make` builds an image if the default one, of a registry or of nginx, cannot be pulled. The built
image has its own name, so that one name never means two images.
"""

from docker import DockerClient
from docker.errors import ImageNotFound

BUILT = "talos-registry-cache"
"""Prefix of the names of images that are built here."""


def on_engine(client: DockerClient, reference: str) -> str:
    """Return the image to run in place of one in the settings, without contacting a registry.

    Args:
        client: the engine.
        reference: the image in the settings.

    Returns:
        The image that was built in its place, if the engine has only that one; otherwise the
        reference itself.
    """
    built = f"{BUILT}/{reference}"
    return built if _has(client, built) and not _has(client, reference) else reference


def _has(client: DockerClient, reference: str) -> bool:
    try:
        client.images.get(reference)
    except ImageNotFound:
        return False
    return True
