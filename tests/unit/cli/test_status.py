from types import SimpleNamespace
from typing import Any

import pytest

from talos_registry_cache.cli.commands import status

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
