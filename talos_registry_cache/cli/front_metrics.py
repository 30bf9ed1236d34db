"""The requests to fronts, and the expiry of their certificates, as Prometheus metrics."""

from collections.abc import Mapping
from datetime import datetime

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from talos_registry_cache.registry.pull_log import Pull, Result

LABELS = ("stack", "upstream", "result")
# In seconds, from a tag in memory to a large layer behind a slow link.
BUCKETS = (0.001, 0.005, 0.025, 0.1, 0.5, 1, 5, 15, 60, 300)


class FrontMetrics:
    """Metrics of the requests to fronts.

    Attributes:
        registry: what serves the metrics.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "registry_cache_requests", "Requests of clients.", LABELS, registry=self.registry
        )
        self._failed = Counter(
            "registry_cache_failed_requests",
            "Requests that got an error other than 401 and 404.",
            LABELS,
            registry=self.registry,
        )
        self._sent = Counter(
            "registry_cache_sent_bytes", "Bytes sent to clients.", LABELS, registry=self.registry
        )
        self._seconds = Histogram(
            "registry_cache_request_duration_seconds",
            "Time until a request was answered completely.",
            LABELS,
            buckets=BUCKETS,
            registry=self.registry,
        )

        self._expiry = Gauge(
            "registry_cache_certificate_expiry_timestamp_seconds",
            "When the certificate of a cache expires, in seconds since 1970.",
            LABELS[:2],
            registry=self.registry,
        )

    def set_expiries(self, expiries: Mapping[tuple[str, str], datetime]) -> None:
        """Set when the certificates of all caches expire, by stack and upstream."""
        self._expiry.clear()
        for place, expiry in expiries.items():
            self._expiry.labels(*place).set(expiry.timestamp())

    def expect(self, stack: str, upstream: str) -> None:
        """Start the series of a front at 0, so that Prometheus sees their first increase."""
        for metric in (self._requests, self._failed, self._sent, self._seconds):
            for result in Result:
                metric.labels(stack, upstream, result)

    def add(self, stack: str, upstream: str, pull: Pull) -> None:
        """Count a request."""
        labels = stack, upstream, pull.result if pull.is_for_content else Result.OTHER
        self._requests.labels(*labels).inc()
        self._failed.labels(*labels).inc(pull.has_failed)
        self._sent.labels(*labels).inc(pull.size)
        self._seconds.labels(*labels).observe(pull.seconds)
