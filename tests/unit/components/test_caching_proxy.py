"""The registry of a cache on an engine.

test_front.py has its front, and test_placement.py a service of a Swarm.
"""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from components import credential_helper, front, hooks
from components.hooks import NetworkHooks
from components.storage import WRITABLE
from tests.unit.components.certificates import authority
from tests.unit.components.declared_caches import declare, environment
from tests.unit.components.stack_graph import CONTAINER, VOLUME, Declared, Graph

TLS = {"kind": "given", "certificate": authority("given").certificate}


def quay(secrets: Any = None, **caches: Any) -> Graph:
    """A stack with a cache of quay.io."""
    return declare({"upstreams": {"quay.io": None}, **caches}, secrets=secrets)


def registry(**caches: Any) -> Declared:
    return quay(**caches).one(CONTAINER, "quay.io-registry")


def env(**caches: Any) -> dict[str, str]:
    return environment(quay(**caches))


def probe(**caches: Any) -> str:
    command: str = registry(**caches).inputs["healthcheck"]["tests"][1]
    return command


def test_a_cache_is_a_registry_and_its_front() -> None:
    graph = quay()

    assert {(one.type, one.name) for one in graph.resources if one.parent == "quay.io"} == {
        (VOLUME, "quay.io-storage"),
        (VOLUME, "quay.io-front"),
        (CONTAINER, "quay.io-registry"),
        (CONTAINER, "quay.io-container"),
    }


def test_it_mounts_its_storage_and_its_private_files_read_only() -> None:
    assert registry().inputs["volumes"] == [
        {"volumeName": "registry-dev-quay.io", "containerPath": "/var/lib/registry"},
        {"volumeName": "registry-dev-quay.io-front", "containerPath": front.SHARED_FOLDER},
        {
            "volumeName": "registry-dev-anonymous",
            "containerPath": "/credentials",
            "readOnly": True,
        },
    ]
    assert credential_helper.COMMAND.startswith("/credentials/")


@pytest.mark.parametrize(("on_destroy", "is_kept"), [("keep", True), ("delete", False)])
def test_on_destroy_decides_whether_the_volume_is_kept(on_destroy: str, *, is_kept: bool) -> None:
    graph = quay(storage={"onDestroy": on_destroy})

    volume = graph.one(VOLUME, "quay.io-storage")
    assert volume.retain_on_delete is is_kept
    # A change would replace the volume, and with it the images.
    assert volume.ignore_changes == ("driverOpts",)
    assert not graph.one(CONTAINER, "quay.io-registry").retain_on_delete


def test_the_registry_itself_deletes_no_image() -> None:
    variables = env(retention={"unusedFor": "720h"})

    assert variables["REGISTRY_PROXY_TTL"] == "0"
    assert variables["REGISTRY_PROXY_REMOTEURL"] == "https://quay.io"
    assert variables["REGISTRY_PROXY_EXEC_COMMAND"] == credential_helper.COMMAND
    assert "REGISTRY_STORAGE_DELETE_ENABLED" not in variables


def test_offline_it_serves_the_same_volume_and_writes_nothing() -> None:
    online, offline = registry().inputs, registry(offline=True).inputs

    assert {key for key in online if online[key] != offline[key]} == {"envs", "healthcheck"}
    assert env(offline=True) == {
        "OTEL_TRACES_EXPORTER": "none",
        "REGISTRY_LOG_LEVEL": "info",
        "REGISTRY_HTTP_NET": "unix",
        "REGISTRY_HTTP_ADDR": front.SOCKET,
        "REGISTRY_STORAGE_MAINTENANCE": "{readonly: {enabled: true}}",
    }


def test_its_log_is_limited() -> None:
    logs = {"level": "debug", "maxSize": "1m", "maxFiles": 9}
    inputs = registry(logs=logs).inputs

    assert env(logs=logs)["REGISTRY_LOG_LEVEL"] == "debug"
    assert inputs["logDriver"] == "json-file"
    assert inputs["logOpts"] == {"max-size": "1m", "max-file": "9"}


def test_it_is_read_only_without_capabilities_and_not_root() -> None:
    inputs = registry().inputs

    assert inputs["readOnly"] is True
    assert inputs["capabilities"] == {"drops": ["ALL"]}
    assert inputs["securityOpts"] == ["no-new-privileges"]
    assert inputs["user"] == "65532:65532"
    assert not {"privileged", "groupAdds", "devices", "networkMode"} & inputs.keys()


def test_up_waits_until_it_is_healthy() -> None:
    inputs = registry().inputs

    assert inputs["wait"] is True
    assert inputs["waitTimeout"] == 60
    assert inputs["restart"] == "always"
    assert inputs["healthcheck"]["interval"] == "500ms"
    # The slow probe of a healthy cache ends before its timeout.
    assert inputs["healthcheck"]["timeout"] == "30s"
    assert "sleep 25" in probe()
    assert "http://127.0.0.1:5001/debug/health" in probe()
    assert probe() == WRITABLE + probe(offline=True)


def test_a_health_check_that_fails_for_the_storage_is_repeated_without_a_pause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    busybox, was_up = tmp_path / "busybox", tmp_path / "up"
    busybox.write_text('#!/bin/sh\n[ "$1" = stat ] && echo "512 255" || exec "$@"\n')
    busybox.chmod(0o755)
    was_up.touch()
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    script = probe().replace("/dev/shm/up", str(was_up)).replace("/var/lib/registry", "/none")  # noqa: S108

    done = subprocess.run(["sh", "-c", script], check=False, capture_output=True, text=True)

    assert (done.returncode, done.stdout) == (1, "/none is full\n")
    assert not was_up.exists()


@pytest.mark.parametrize(
    ("limit", "mib"), [("512m", 512), ("2g", 2048), ("65536k", 64), ("16896k", 16), ("17408k", 17)]
)
def test_memory_and_swap_are_limited(limit: str, mib: int) -> None:
    inputs = registry(memoryLimit=limit).inputs

    assert (inputs["memory"], inputs["memorySwap"]) == (mib, 2 * mib)


def test_a_container_is_deleted_before_its_replacement_is_created() -> None:
    one = registry()

    assert one.delete_before_replace
    assert one.replace_on_changes == ("healthcheck",)
    assert [hook.__qualname__ for hook in one.before_create] == [
        hooks.make_way.__qualname__,
        NetworkHooks.before_container.__qualname__,
        hooks.hand_over_storage.__qualname__,
        hooks.watch_health.__qualname__,
    ]
