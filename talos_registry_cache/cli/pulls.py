"""Totals of pulls, by image and client."""

from collections import Counter
from dataclasses import dataclass, field

from talos_registry_cache.cli.pull_log import Pull

FIRST_ERROR = 400
CACHED = frozenset({"hit", "shared", "stale"})


@dataclass(slots=True)
class Total:
    """What one client, or all, have pulled.

    Attributes:
        results: the number of answers, by result; `failed` for errors.
        size: the bytes of the answers.
    """

    results: Counter[str] = field(default_factory=Counter)
    size: int = 0

    def add(self, pull: Pull) -> None:
        """Add a request."""
        self.results["failed" if pull.status >= FIRST_ERROR else pull.result] += 1
        self.size += pull.size

    @property
    def cached(self) -> int:
        """The number of answers that needed no fetch of their own."""
        return sum(self.results[result] for result in CACHED)


@dataclass(slots=True)
class Pulls:
    """Pulls of images by clients.

    A blob counts for the image whose tag the client has asked for last in the same repository.
    """

    total: Total = field(default_factory=Total)
    by_image: dict[tuple[str, str], Total] = field(default_factory=dict)
    _tags: dict[tuple[str, str], str] = field(default_factory=dict)

    def add(self, registry: str, pull: Pull) -> None:
        """Add a request to the cache of a registry."""
        name = f"{registry}/{pull.repository}"
        if pull.kind == "manifests" and ":" not in pull.target:
            self._tags[name, pull.client] = f"{name}:{pull.target}"
        image = self._tags.get((name, pull.client), name)
        self.total.add(pull)
        self.by_image.setdefault((image, pull.client), Total()).add(pull)
