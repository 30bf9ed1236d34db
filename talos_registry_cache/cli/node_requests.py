"""The requests of nodes in the logs of caches."""

import re
from collections.abc import Container, Iterable, Iterator
from datetime import datetime
from typing import NamedTuple
from urllib.parse import parse_qs

from talos_registry_cache.registry import reference
from talos_registry_cache.registry.errors import InvalidReferenceError

# A manifest that was served, in the log of a registry or a front. `ns` tells requests to a mirror
# from others.
SERVED = re.compile(
    r'(?P<client>\S+) \S+ \S+ \[(?P<at>[^\]]*)\] "(?:GET|HEAD) '
    r'/v2/(?P<repository>\S+)/manifests/(?P<target>[^\s?]+)\?(?P<query>\S*) [^"]*" 2\d\d '
)


class Request(NamedTuple):
    """A request of a node for a manifest, which a cache answered."""

    at: datetime
    client: str
    registry: str
    repository: str
    target: str


def served(lines: Iterable[str]) -> Iterator[Request]:
    """The requests of nodes for manifests that a cache has answered, from its log.

    Args:
        lines: the log of a registry or of a front.
    """
    for line in lines:
        if match := SERVED.match(line):
            at = datetime.strptime(match["at"], "%d/%b/%Y:%H:%M:%S %z")
            for registry in parse_qs(match["query"]).get("ns", ()):
                yield Request(at, match["client"], registry, match["repository"], match["target"])


def is_from_caches(
    image: str, digest: str, asked: Iterable[Request], others: Container[str]
) -> bool:
    """Whether the caches' logs show a node's request for an image, by tag or digest.

    Args:
        image: reference of the image.
        digest: its digest on the node.
        asked: the requests in the logs.
        others: the addresses of the other nodes, whose requests do not count.
    """
    try:
        name = reference.parse(image)
    except InvalidReferenceError:
        return False
    return any(
        (one.registry, one.repository) == (name.registry, name.repository)
        and one.target in {name.tag, name.digest, digest}
        and one.client not in others
        for one in asked
    )
