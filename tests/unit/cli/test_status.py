from types import SimpleNamespace
from typing import Any

import pytest

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
