"""The settings of the fronts of caches."""

from pydantic import Field

from .model import Model
from .values import Freshness, Image

DEFAULT_IMAGE = "nginx:1.30.6-alpine"


class Front(Model):
    """An nginx before each registry.

    Concurrent pulls share one fetch, tags are served while the upstream is silent, and stored blobs
    are sent straight from their files.
    """

    image: Image = Field(default=DEFAULT_IMAGE, description="Image of the fronts")
    tag_freshness: Freshness = Field(
        default="1m",
        description=(
            "How long a tag is served without asking the upstream again, such as 30s; after that, "
            "it is served once more while the upstream is asked; 0s asks every time"
        ),
    )
