"""Where a registry is reached, and with which trust and credentials."""

from dataclasses import dataclass, field
from urllib.parse import urlsplit

ALL_REGISTRIES = "*"
"""In mirrors, instead of a registry host: all registries that have no mirror of their own."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A registry or a mirror of one, as this machine or a node reaches it.

    Attributes:
        url: http or https URL, without /v2.
        ca: CA certificate (PEM), the only one that is trusted for it; the system's CAs if None.
        username: name of the user who pulls, or None for anonymous pulls.
        password: the user's password.
    """

    url: str
    ca: str | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)

    @property
    def address(self) -> str:
        """Host and port."""
        return urlsplit(self.url).netloc

    @property
    def is_closed(self) -> bool:
        """Whether clients need more than the URL."""
        return self.ca is not None or self.username is not None
