"""The settings of the local registry."""

from typing import Annotated

from pydantic import Field

from .model import Model, Needed
from .values import Image, Port


class Local(Model):
    """A registry to push your own images to.

    Images are pushed to localhost, and nodes pull them by the same name through a mirror.
    """

    port: Annotated[Port, Needed("a port, such as 5010")] = Field(
        description="Port on this machine, which is a part of the images' names"
    )
    image: Image | None = Field(
        default=None, description="Image of this registry; the default is `caches.image`"
    )

    @property
    def host(self) -> str:
        """The registry host in the names of its images."""
        return f"localhost:{self.port}"
