"""One cache as a container of an engine; test_placement.py has it as a service of a Swarm."""

from typing import Any

import pytest

from components import credential_helper, hooks
from components.hooks import NetworkHooks
from components.storage import WRITABLE
from tests.unit.components.certificates import authority
from tests.unit.components.declared_caches import declare
from tests.unit.components.stack_graph import CONTAINER, VOLUME, Declared, Graph

TLS = {"kind": "given", "certificate": authority("given").certificate}


def quay(secrets: Any = None, **caches: Any) -> Graph:
    """A stack with a cache of quay.io."""
    return declare({"upstreams": {"quay.io": None}, **caches}, secrets=secrets)


def container(**caches: Any) -> Declared:
    return quay(**caches).one(CONTAINER, "quay.io-container")


def environment(**caches: Any) -> dict[str, str]:
    pairs = [variable.partition("=") for variable in container(**caches).inputs["envs"]]
    return {name: value for name, _, value in pairs}


def probe(**caches: Any) -> str:
    command: str = container(**caches).inputs["healthcheck"]["tests"][1]
    return command


def test_a_proxy_is_a_container_and_a_volume() -> None:
    graph = quay()

    assert [(one.type, one.name) for one in graph.resources if one.parent == "quay.io"] == [
        (VOLUME, "quay.io-storage"),
        (CONTAINER, "quay.io-container"),
    ]


def test_it_keeps_images_in_its_volume_and_reads_its_private_files() -> None:
    assert container().inputs["volumes"] == [
        {"volumeName": "registry-dev-quay.io", "containerPath": "/var/lib/registry"},
        {
            "volumeName": "registry-dev-anonymous",
            "containerPath": "/credentials",
            "readOnly": True,
        },
    ]
    assert credential_helper.COMMAND.startswith("/credentials/")


@pytest.mark.parametrize(("on_destroy", "is_kept"), [("keep", True), ("delete", False)])
def test_on_destroy_says_whether_the_volume_is_kept(on_destroy: str, *, is_kept: bool) -> None:
    graph = quay(storage={"onDestroy": on_destroy})

    assert graph.one(VOLUME, "quay.io-storage").retain_on_delete is is_kept
    assert not graph.one(CONTAINER, "quay.io-container").retain_on_delete


def test_an_existing_volume_keeps_its_driver_options() -> None:
    assert quay().one(VOLUME, "quay.io-storage").ignore_changes == ("driverOpts",)


def test_by_default_it_keeps_images_for_ever() -> None:
    assert environment() == {
        "OTEL_TRACES_EXPORTER": "none",
        "REGISTRY_LOG_LEVEL": "info",
        "REGISTRY_PROXY_CACHEWRITETIMEOUT": "1h",
        "REGISTRY_PROXY_EXEC_COMMAND": credential_helper.COMMAND,
        "REGISTRY_PROXY_EXEC_LIFETIME": "0s",
        "REGISTRY_PROXY_REMOTEURL": "https://quay.io",
        "REGISTRY_PROXY_TTL": "0",
    }


def test_with_a_ttl_it_may_delete() -> None:
    variables = environment(ttl="720h")

    assert variables["REGISTRY_PROXY_TTL"] == "720h"
    assert variables["REGISTRY_STORAGE_DELETE_ENABLED"] == "true"


def test_offline_it_serves_the_same_volume_and_writes_nothing() -> None:
    online, offline = container().inputs, container(offline=True, ttl="720h").inputs

    assert {key for key in online if online[key] != offline[key]} == {"envs", "healthcheck"}
    assert environment(offline=True, ttl="720h") == {
        "OTEL_TRACES_EXPORTER": "none",
        "REGISTRY_LOG_LEVEL": "info",
        "REGISTRY_STORAGE_MAINTENANCE": "{readonly: {enabled: true}}",
    }


def test_its_log_is_bounded() -> None:
    logs = {"level": "debug", "maxSize": "1m", "maxFiles": 9}
    inputs = container(logs=logs).inputs

    assert environment(logs=logs)["REGISTRY_LOG_LEVEL"] == "debug"
    assert inputs["logDriver"] == "json-file"
    assert inputs["logOpts"] == {"max-size": "1m", "max-file": "9"}


def test_it_has_no_more_rights_than_it_needs() -> None:
    inputs = container().inputs

    assert inputs["readOnly"] is True
    assert inputs["capabilities"] == {"drops": ["ALL"]}
    assert inputs["securityOpts"] == ["no-new-privileges"]
    assert inputs["user"] == "65532:65532"
    assert not {"privileged", "groupAdds", "devices", "networkMode"} & inputs.keys()


def test_it_restarts_whenever_it_exits() -> None:
    assert container().inputs["restart"] == "always"


def test_up_waits_for_its_first_answer() -> None:
    inputs = container().inputs

    assert inputs["wait"] is True
    assert inputs["healthcheck"]["interval"] == "500ms"
    assert "http://127.0.0.1:5000/v2/" in probe()


def test_it_is_healthy_only_while_it_can_write_unless_it_is_offline() -> None:
    assert probe() == WRITABLE + probe(offline=True)
    assert probe(offline=True).startswith("wget")


def test_the_slow_probe_of_a_healthy_cache_ends_before_its_timeout() -> None:
    assert "sleep 25" in probe()
    assert container().inputs["healthcheck"]["timeout"] == "30s"


def test_with_tls_the_probe_needs_neither_certificate_nor_password() -> None:
    tls = {"tls": TLS, "secrets": {"tlsKey": authority("given").key}}

    assert "http://127.0.0.1:5001/debug/health" in probe(**tls)


@pytest.mark.parametrize(
    ("limit", "mib"), [("512m", 512), ("2g", 2048), ("65536k", 64), ("16896k", 16), ("17408k", 17)]
)
def test_memory_and_swap_are_limited(limit: str, mib: int) -> None:
    inputs = container(memoryLimit=limit).inputs

    assert (inputs["memory"], inputs["memorySwap"]) == (mib, 2 * mib)


def test_a_container_is_deleted_before_its_port_and_name_are_used_again() -> None:
    one = container()

    assert one.delete_before_replace
    assert one.replace_on_changes == ("healthcheck",)
    assert [hook.__qualname__ for hook in one.before_create] == [
        hooks.make_way.__qualname__,
        NetworkHooks.before_container.__qualname__,
        hooks.hand_over_storage.__qualname__,
        hooks.watch_health.__qualname__,
    ]
