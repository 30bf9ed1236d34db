"""What a registry counts, in the text form of Prometheus."""

import re
from collections import Counter
from dataclasses import dataclass

SIZE_LIMIT = 1 << 20
"""Most that is read of a page of metrics, in bytes; distribution's has some 30 kB."""

_VALUE = r"\d{1,20}(?:\.\d{1,20})?(?:e\+?\d\d)?"
_LINE = re.compile(rf'registry_proxy_(\w+)_total\{{type="(?:blob|manifest)"\}} ({_VALUE})(?!\S)')


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
