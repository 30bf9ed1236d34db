"""A registry's counters, in Prometheus's text format."""

import re
from collections import Counter
from dataclasses import dataclass

SIZE_LIMIT = 1 << 20
"""Limit of a metrics page in bytes; distribution's has about 30 kB."""

_VALUE = r"\d{1,20}(?:\.\d{1,20})?(?:e\+?\d\d)?"
_LINE = re.compile(rf'registry_proxy_(\w+)_total\{{type="(?:blob|manifest)"\}} ({_VALUE})(?!\S)')


@dataclass(frozen=True, slots=True)
class Metrics:
    """A registry's counters since it was started (distribution 3, registry/proxy/proxymetrics.go).

    A registry behind a front is asked for misses only; what clients get is in the front's log.

    Attributes:
        hits, misses: blobs and manifests that were cached, or had to be fetched.
        from_upstream: bytes fetched.
        to_clients: bytes served.
    """

    hits: int
    misses: int
    from_upstream: int
    to_clients: int

    @property
    def saved(self) -> int:
        """Bytes served that did not have to be fetched from the upstream."""
        return max(0, self.to_clients - self.from_upstream)


def read_metrics(text: str) -> Metrics | None:
    """Parse one or more metrics pages and add them up.

    Returns:
        the sums, or None if no page has counters, as with distribution 2.
    """
    sums: Counter[str] = Counter()
    for name, value in _LINE.findall(text):
        sums[name] += int(float(value))
    if not sums:
        return None
    return Metrics(sums["hits"], sums["misses"], sums["pulled_bytes"], sums["pushed_bytes"])
