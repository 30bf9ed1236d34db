"""What a registry counts, in the text form of Prometheus."""

import re
from collections import Counter
from dataclasses import dataclass

_LINE = re.compile(r'registry_proxy_(\w+)_total\{type="(?:blob|manifest)"\} (\S+)')


@dataclass(frozen=True, slots=True)
class Metrics:
    """What a cache has done since it was started (distribution 3, registry/proxy/proxymetrics.go).

    Attributes:
        hits, misses: how many blobs and manifests it had, or had to fetch.
        from_upstream: bytes that it has fetched.
        to_clients: bytes that it has served.
    """

    hits: int
    misses: int
    from_upstream: int
    to_clients: int

    @property
    def saved(self) -> int:
        """What clients got and the upstream did not have to send, in bytes."""
        return max(0, self.to_clients - self.from_upstream)


def read_metrics(text: str) -> Metrics | None:
    """Read what a cache counts, or what several do, added up; None where none counts.

    Distribution 2 does not.
    """
    sums: Counter[str] = Counter()
    for name, value in _LINE.findall(text):
        sums[name] += int(float(value))
    if not sums:
        return None
    return Metrics(sums["hits"], sums["misses"], sums["pulled_bytes"], sums["pushed_bytes"])
