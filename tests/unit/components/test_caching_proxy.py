from collections.abc import Mapping
from typing import Any

import pytest

from components import credential_helper, engine
from components.caching_proxy import CachingProxy, CachingProxyArgs
from tests.unit.components import stack_graph
from tests.unit.components.stack_graph import CONTAINER, VOLUME, Declared, Graph

ARGS: Mapping[str, Any] = {
    "container": "registry-dev-quay.io",
    "volume": "cached-quay.io",
    "on_destroy": "keep",
    "image": "sha256:0123",
    "image_reference": "registry:3.1.2",
    "remote_url": "https://quay.io",
    "port": 5002,
    "publish_on": ["172.17.0.1", "127.0.0.1"],
    "mirror_host": "172.17.0.1",
    "network": "registry-dev",
    "credentials": "registry-dev-anonymous",
    "ttl": None,
    "log_level": "info",
    "log_max_size": "10m",
    "log_max_files": 3,
    "memory_limit_mib": 512,
    "labels": {"stack": "dev", "upstream": "quay.io"},
}


def declare(**changed: Any) -> Graph:
    args = CachingProxyArgs(**{**ARGS, **changed})
    return stack_graph.run(lambda: CachingProxy("quay.io", args))


def container(**changed: Any) -> Declared:
    return declare(**changed).one(CONTAINER, "quay.io-container")


def environment(**changed: Any) -> dict[str, str]:
    pairs = [variable.partition("=") for variable in container(**changed).inputs["envs"]]
    return {name: value for name, _, value in pairs}


def test_a_proxy_is_a_container_and_a_volume() -> None:
    graph = declare()

    assert [(one.name, one.parent) for one in graph.resources if one.parent == "quay.io"] == [
        ("quay.io-storage", "quay.io"),
        ("quay.io-container", "quay.io"),
    ]
    assert graph.one(CONTAINER, "quay.io-container").inputs["name"] == "registry-dev-quay.io"
    assert graph.one(VOLUME, "quay.io-storage").inputs["name"] == "cached-quay.io"


def test_what_is_cached_lies_in_the_volume() -> None:
    assert container().inputs["volumes"][0] == {
        "volumeName": "cached-quay.io",
        "containerPath": "/var/lib/registry",
    }


def test_the_credential_command_is_mounted_read_only() -> None:
    assert container().inputs["volumes"][1] == {
        "volumeName": "registry-dev-anonymous",
        "containerPath": "/credentials",
        "readOnly": True,
    }
    assert environment()["REGISTRY_PROXY_EXEC_COMMAND"] == credential_helper.COMMAND
    assert credential_helper.COMMAND.startswith("/credentials/")


@pytest.mark.parametrize(("on_destroy", "outlives"), [("keep", True), ("delete", False)])
def test_the_volume_outlives_the_stack_if_it_is_to_be_kept(
    on_destroy: str, *, outlives: bool
) -> None:
    graph = declare(on_destroy=on_destroy)

    assert graph.one(VOLUME, "quay.io-storage").retain_on_delete is outlives
    assert not graph.one(CONTAINER, "quay.io-container").retain_on_delete


def test_a_volume_that_is_there_already_keeps_its_driver_options() -> None:
    assert declare().one(VOLUME, "quay.io-storage").ignore_changes == ("driverOpts",)


def test_the_registry_is_a_proxy_of_its_upstream_that_keeps_for_ever() -> None:
    assert environment() == {
        "OTEL_TRACES_EXPORTER": "none",
        "REGISTRY_LOG_LEVEL": "info",
        "REGISTRY_PROXY_CACHEWRITETIMEOUT": "1h",
        "REGISTRY_PROXY_EXEC_COMMAND": "/credentials/helper",
        "REGISTRY_PROXY_EXEC_LIFETIME": "0s",
        "REGISTRY_PROXY_REMOTEURL": "https://quay.io",
        "REGISTRY_PROXY_TTL": "0",
    }


def test_what_expires_can_be_deleted() -> None:
    variables = environment(ttl="720h")

    assert variables["REGISTRY_PROXY_TTL"] == "720h"
    assert variables["REGISTRY_STORAGE_DELETE_ENABLED"] == "true"


def test_without_an_upstream_it_serves_what_it_holds_and_takes_nothing() -> None:
    assert environment(remote_url=None, ttl="720h") == {
        "OTEL_TRACES_EXPORTER": "none",
        "REGISTRY_LOG_LEVEL": "info",
        "REGISTRY_STORAGE_MAINTENANCE": "{readonly: {enabled: true}}",
    }


def test_what_it_holds_is_in_the_same_volume_with_an_upstream_and_without() -> None:
    online, offline = container().inputs, container(remote_url=None).inputs

    assert {key for key in online if online[key] != offline[key]} == {"envs"}


def test_the_log_has_its_level_and_is_bounded() -> None:
    changed = {"log_level": "debug", "log_max_size": "1m", "log_max_files": 9}
    inputs = container(**changed).inputs

    assert environment(**changed)["REGISTRY_LOG_LEVEL"] == "debug"
    assert inputs["logDriver"] == "json-file"
    assert inputs["logOpts"] == {"max-size": "1m", "max-file": "9"}


def test_the_ports_are_published_on_the_given_addresses_in_their_order() -> None:
    assert container(port=5999).inputs["ports"] == [
        {"internal": 5000, "external": 5999, "ip": "172.17.0.1"},
        {"internal": 5000, "external": 5999, "ip": "127.0.0.1"},
    ]


def test_the_container_has_no_more_rights_than_it_needs() -> None:
    inputs = container().inputs

    assert inputs["readOnly"] is True
    assert inputs["capabilities"] == {"drops": ["ALL"]}
    assert inputs["securityOpts"] == ["no-new-privileges"]
    assert not {"user", "privileged", "groupAdds", "devices", "networkMode"} & inputs.keys()


def test_the_container_starts_again_whenever_it_ends() -> None:
    assert container().inputs["restart"] == "always"


def test_up_waits_until_the_cache_answers() -> None:
    inputs = container().inputs

    assert inputs["wait"] is True
    assert inputs["waitTimeout"] == 60
    assert inputs["healthcheck"]["tests"][0] == "CMD-SHELL"
    assert "http://127.0.0.1:5000/v2/" in inputs["healthcheck"]["tests"][1]
    assert inputs["healthcheck"]["interval"] == "500ms"


def test_the_slow_probe_of_a_healthy_cache_ends_before_its_timeout() -> None:
    inputs = container().inputs["healthcheck"]

    assert "sleep 25" in inputs["tests"][1]
    assert inputs["timeout"] == "30s"


def test_memory_and_swap_are_both_bounded() -> None:
    inputs = container(memory_limit_mib=64).inputs

    assert (inputs["memory"], inputs["memorySwap"]) == (64, 128)


def test_the_container_is_on_the_network_of_the_caches_only() -> None:
    assert container().inputs["networksAdvanced"] == [{"name": "registry-dev"}]


def test_container_and_volume_have_the_labels() -> None:
    for one in declare().resources:
        if one.parent == "quay.io":
            assert one.inputs["labels"] == [
                {"label": "stack", "value": "dev"},
                {"label": "upstream", "value": "quay.io"},
            ]


def test_a_container_is_deleted_before_its_port_and_name_are_used_again() -> None:
    one = container()

    assert one.delete_before_replace
    assert one.replace_on_changes == ("healthcheck",)
    assert one.before_create == (engine.before_container,)


def test_a_proxy_tells_where_nodes_and_where_this_machine_reach_it() -> None:
    told: list[CachingProxy] = []
    args = CachingProxyArgs(**{**ARGS, "mirror_host": "host.docker.internal"})

    stack_graph.run(lambda: told.append(CachingProxy("quay.io", args)))

    assert told[0].mirror == "http://host.docker.internal:5002"
    assert told[0].endpoint == "http://127.0.0.1:5002"
    assert told[0].image == "registry:3.1.2"


def test_this_machine_reaches_a_cache_without_loopback_where_it_is_published() -> None:
    told: list[CachingProxy] = []
    args = CachingProxyArgs(**{**ARGS, "publish_on": ["172.17.0.1"]})

    stack_graph.run(lambda: told.append(CachingProxy("quay.io", args)))

    assert told[0].endpoint == "http://172.17.0.1:5002"
