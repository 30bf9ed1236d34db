"""The image that caches run: the one that the settings name, or the one that is built for it here.

`make` builds an image of the same registry where the settings' own cannot be pulled. It has a name
of its own, so that no name means two images.
"""

from docker import DockerClient
from docker.errors import ImageNotFound

BUILT = "talos-registry-cache"
"""What the names of images that are built here begin with."""

# What they are labelled with. Once, they had the names of the images that they stand for.
BUILT_LABEL = (
    "org.opencontainers.image.description",
    "built-from-the-go-module-by-talos-registry-cache",
)


def on_engine(client: DockerClient, reference: str) -> str:
    """The name of the image to run for one that settings name; no registry is asked.

    Args:
        client: the engine.
        reference: the image as the settings name it.

    Returns:
        that of the image which is built for it, if the engine has that alone; else the reference.
    """
    if (labels := _labels(client, reference)) is not None and BUILT_LABEL not in labels.items():
        return reference
    built = f"{BUILT}/{reference}"
    return reference if _labels(client, built) is None else built


def _labels(client: DockerClient, reference: str) -> dict[str, str] | None:
    """The labels of an image; None where the engine has no such image."""
    try:
        return client.images.get(reference).labels
    except ImageNotFound:
        return None
