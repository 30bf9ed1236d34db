"""The images that clients pull through fronts, added up from the requests."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from http import HTTPStatus

from talos_registry_cache.registry import reference
from talos_registry_cache.registry.pull_log import Kind, Pull, Result

FAILED = "failed"


@dataclass(slots=True)
class Pulled:
    """Requests, added up.

    Attributes:
        requests: how many, by result; those that got an error count as FAILED.
        size: the bytes sent.
        began, ended: when the first request began and the last one ended; None without requests.
    """

    requests: Counter[str] = field(default_factory=Counter)
    size: int = 0
    began: datetime | None = None
    ended: datetime | None = None

    @property
    def rate(self) -> int:
        """Bytes per second from the beginning of the first request to the end of the last one."""
        if self.began is None or self.ended is None:
            return 0
        return int(self.size / max((self.ended - self.began).total_seconds(), 0.001))

    def add(self, pull: Pull) -> None:
        """Add a request."""
        began = pull.time - timedelta(seconds=pull.seconds)
        self.requests[_result(pull)] += 1
        self.size += pull.size
        self.began = min(began, self.began or began)
        self.ended = max(pull.time, self.ended or pull.time)


class Pulls:
    """The images that clients pull.

    A blob counts for the image of its repository whose manifest the client asked for last. So does
    a manifest that is asked for by digest after one with a tag: it is that of a platform. Requests
    for neither, and the 401 that starts a login, do not count.

    Attributes:
        total: all requests.
    """

    def __init__(self) -> None:
        self.total = Pulled()
        self._images: dict[tuple[str, str], Pulled] = {}
        self._last: dict[tuple[str, str, str], str] = {}

    def add(self, registry: str, pull: Pull) -> None:
        """Add a request for an image of a registry."""
        if not pull.is_for_content:
            return
        key = (self._image(registry, pull), pull.client)
        # The last one pulled is the last one in the dictionary.
        pulled = self._images.pop(key, None) or Pulled()
        self._images[key] = pulled
        pulled.add(pull)
        self.total.add(pull)

    def images(self) -> Iterable[tuple[str, str, Pulled]]:
        """Each image, the client that pulls it and its requests; the last one pulled first."""
        return [(*key, pulled) for key, pulled in reversed(self._images.items())]

    def _image(self, registry: str, pull: Pull) -> str:
        place = registry, pull.repository, pull.client
        name = f"{registry}/{pull.repository}"
        last = self._last.get(place, name)
        if pull.kind is Kind.BLOB:
            return last
        if ":" not in pull.reference:
            last = f"{name}:{pull.reference}"
        elif not last.startswith(f"{name}:"):
            last = f"{name}@{reference.short(pull.reference)}"
        self._last[place] = last
        return last


def _result(pull: Pull) -> str:
    return FAILED if pull.status >= HTTPStatus.BAD_REQUEST else Result(pull.result).value
