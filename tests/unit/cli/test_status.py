from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from components.certificate_authority import AUTHORITY_LASTS, with_next
from talos_registry_cache.cli.commands import status
from talos_registry_cache.cli.metrics import Metrics

WHOLE = f"{status.HEAD}4\t.\n\n".encode()
CUT = b"# HELP go_gc_duration_seconds\n"


class Engine:
    """An engine whose containers answer a probe with these outputs, one after another."""

    def __init__(self, *outputs: bytes) -> None:
        self.outputs = list(outputs)

    @property
    def containers(self) -> "Engine":
        return self

    def get(self, _: str) -> "Engine":
        return self

    def exec_run(self, *_: Any, **__: Any) -> tuple[int, bytes]:
        return 0, self.outputs.pop(0)


@pytest.mark.parametrize(
    ("outputs", "usage"), [((CUT, WHOLE), status.Usage(0, 0, 4096, None)), ((CUT, CUT, CUT), None)]
)
def test_a_truncated_probe_is_repeated_a_few_times(
    outputs: tuple[bytes, ...], usage: status.Usage | None
) -> None:
    engine: Any = Engine(*outputs)
    cache: Any = SimpleNamespace(
        process="registry-dev",
        storage="registry-dev",
        is_service=False,
        is_running=True,
        has_front=False,
    )

    assert status._usage(engine, cache) == usage


METRICS = b"\n".join(
    b'registry_proxy_%s_total{type="blob"} %d' % counted
    for counted in ((b"hits", 1), (b"misses", 2), (b"pulled_bytes", 300), (b"pushed_bytes", 400))
)


def test_with_a_front_its_log_counts_what_clients_got() -> None:
    blob = (
        '10.5.0.2 - - [27/Nov/2026:18:30:00 +0000] "GET /v2/app/blobs/sha256:ab HTTP/1.1" '
        '200 1000 "-" "containerd" 0.012 {}\n'
    )
    log = "".join(map(blob.format, ["miss", "shared", "hit"])).encode()
    registry = Engine(WHOLE + METRICS)
    front = SimpleNamespace(logs=lambda **_: [log[:50], log[50:]])
    containers = {"registry-dev": front, "registry-dev-registry": registry}
    engine: Any = SimpleNamespace(containers=containers)
    cache: Any = SimpleNamespace(
        name="registry-dev",
        process="registry-dev-registry",
        storage="registry-dev",
        is_service=False,
        is_running=True,
        has_front=True,
    )

    usage = status._usage(engine, cache)

    assert usage == status.Usage(0, 0, 4096, Metrics(2, 1, 300, 3000))


# Certificates

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("left", "said"),
    [
        (timedelta(days=30, hours=1), None),
        (timedelta(days=29, hours=1), "expires in 29 days (2026-12-27)"),
        (timedelta(hours=1), "expires in 0 days (2026-11-28)"),
        (timedelta(hours=-1), "has expired (2026-11-28)"),
    ],
)
def test_a_certificate_is_warned_about_30_days_before_it_expires(
    left: timedelta, said: str | None
) -> None:
    warnings = list(status.certificate_warnings({"docker.io": NOW + left, "quay.io": None}, NOW))

    if said is None:
        assert warnings == []
    else:
        (warning,) = warnings
        assert f"docker.io: the certificate {said}; `pulumi up` renews it" in warning


def test_caches_that_share_a_certificate_share_a_warning() -> None:
    shared, other = NOW + timedelta(days=1), NOW + timedelta(days=2)
    expiries = {"docker.io": shared, "ghcr.io": other, "quay.io": shared}

    first, second = status.certificate_warnings(expiries, NOW)

    assert first.startswith("docker.io, quay.io: ")
    assert second.startswith("ghcr.io: ")


def test_a_new_ca_is_mentioned_until_it_signs() -> None:
    introduced = NOW - timedelta(days=10)
    first = with_next([], "team", introduced - AUTHORITY_LASTS + timedelta(days=700))
    both = "".join(one.certificate for one in with_next(first, "team", introduced))

    assert status.ca_note(first[0].certificate, NOW) is None
    note = status.ca_note(both, NOW)
    assert note is not None
    assert "`cachectl mirrors`" in note
    assert f"{introduced + timedelta(days=670):%Y-%m-%d}" in note
    assert status.ca_note(both, introduced + timedelta(days=671)) is None
