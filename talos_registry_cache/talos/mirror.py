"""Mirror: where a node pulls from, and what it needs to be let in there."""

from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Mirror:
    """A mirror of a registry; one that is open to all is its URL alone.

    Attributes:
        url: its URL as nodes reach it.
        ca: the certificate of the authority that nodes trust for it, PEM.
        username: who asks; nobody where it is left out.
        password: the password.
    """

    url: str
    ca: str | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)

    @property
    def address(self) -> str:
        """Host and port, by which trust and credentials are filed."""
        return urlsplit(self.url).netloc

    @property
    def is_closed(self) -> bool:
        """Whether nodes need more than the URL."""
        return self.ca is not None or self.username is not None
