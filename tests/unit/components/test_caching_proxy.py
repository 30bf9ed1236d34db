from dataclasses import replace
from typing import Any, Literal

import pulumi
import pytest

from components import credential_helper, engine, health, storage_owner
from components.belongings import Belongings
from components.caching_proxy import CachingProxy, CachingProxyArgs
from components.engine import EngineFacts, NetworkHooks
from components.placement import MountedFiles, OnEngine
from components.settings.caches import Logs
from components.storage import WRITABLE, VolumeOfEngine
from tests.unit.components import stack_graph
from tests.unit.components.stack_graph import CONTAINER, VOLUME, Declared, Graph

QUAY = {"stack": "dev", "upstream": "quay.io"}
BELONGINGS = Belongings(EngineFacts("172.17.0.1", {}, stack="dev"), "here", "registry-dev")
NETWORK_HOOKS = NetworkHooks("registry-dev")
ON_ENGINE = OnEngine(
    prefix="registry-dev",
    network="registry-dev",
    publish_on=["172.17.0.1", "127.0.0.1"],
    writer_image="sha256:0123",
    belongings=BELONGINGS,
    network_hooks=NETWORK_HOOKS,
)
ARGS = CachingProxyArgs(
    name="registry-dev-quay.io",
    storage=VolumeOfEngine("cached-quay.io", "keep", BELONGINGS),
    placement=ON_ENGINE,
    image="sha256:0123",
    image_reference="registry:3.1.2",
    remote_url="https://quay.io",
    mirror="http://172.17.0.1:5002",
    endpoint="http://127.0.0.1:5002",
    port=5002,
    files=MountedFiles(volume="registry-dev-anonymous"),
    access={},
    trust={},
    ttl=None,
    logs=Logs(),
    memory_limit="512m",
    labels=QUAY,
    marks={},
)


def declare(**changed: Any) -> Graph:
    args = replace(ARGS, **changed)
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
    on_destroy: Literal["keep", "delete"], *, outlives: bool
) -> None:
    graph = declare(storage=VolumeOfEngine("cached-quay.io", on_destroy, BELONGINGS))

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

    assert {key for key in online if online[key] != offline[key]} == {"envs", "healthcheck"}


def test_the_log_has_its_level_and_is_bounded() -> None:
    logs = Logs.model_validate({"level": "debug", "maxSize": "1m", "maxFiles": 9})
    inputs = container(logs=logs).inputs

    assert environment(logs=logs)["REGISTRY_LOG_LEVEL"] == "debug"
    assert inputs["logDriver"] == "json-file"
    assert inputs["logOpts"] == {"max-size": "1m", "max-file": "9"}


def test_the_ports_are_published_on_the_given_addresses() -> None:
    assert container(port=5999).inputs["ports"] == [
        {"internal": 5000, "external": 5999, "ip": "127.0.0.1"},
        {"internal": 5000, "external": 5999, "ip": "172.17.0.1"},
    ]


def test_the_container_has_no_more_rights_than_it_needs() -> None:
    inputs = container().inputs

    assert inputs["readOnly"] is True
    assert inputs["capabilities"] == {"drops": ["ALL"]}
    assert inputs["securityOpts"] == ["no-new-privileges"]
    assert inputs["user"] == "65532:65532"
    assert not {"privileged", "groupAdds", "devices", "networkMode"} & inputs.keys()


def test_the_container_starts_again_whenever_it_ends() -> None:
    assert container().inputs["restart"] == "always"


def test_up_waits_until_the_cache_answers() -> None:
    inputs = container().inputs

    assert inputs["wait"] is True
    assert inputs["waitTimeout"] == 60
    assert inputs["healthcheck"]["tests"][0] == "CMD-SHELL"
    assert "http://127.0.0.1:5000/v2/" in inputs["healthcheck"]["tests"][1]
    assert inputs["healthcheck"]["interval"] == "500ms"


def test_a_cache_that_stores_is_healthy_only_while_it_can_write() -> None:
    storing, serving = (
        container(remote_url=url).inputs["healthcheck"]["tests"][1]
        for url in ("https://quay.io", None)
    )

    assert storing == WRITABLE + serving
    assert serving.startswith("wget")


def test_the_slow_probe_of_a_healthy_cache_ends_before_its_timeout() -> None:
    inputs = container().inputs["healthcheck"]

    assert "sleep 25" in inputs["tests"][1]
    assert inputs["timeout"] == "30s"


def test_memory_and_swap_are_both_bounded() -> None:
    inputs = container(memory_limit="64m").inputs

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
    assert one.before_create == (
        engine.before_container,
        NETWORK_HOOKS.before_container,
        storage_owner.before_container,
        health.before_container,
    )


def test_a_proxy_tells_where_nodes_and_where_this_machine_reach_it() -> None:
    told: list[CachingProxy] = []

    def program() -> None:
        told.append(CachingProxy("quay.io", ARGS))
        pulumi.export("described", told[0].described())

    outputs = stack_graph.run(program).outputs

    assert told[0].mirror == "http://172.17.0.1:5002"
    assert outputs["described"] == {
        "endpoint": "http://127.0.0.1:5002",
        "name": "registry-dev-quay.io",
        "storage": "cached-quay.io",
        "image": "registry:3.1.2",
    }


# Closed to strangers


def test_who_may_use_it_and_whom_it_trusts_is_told_to_the_registry() -> None:
    variables = environment(
        access={"REGISTRY_AUTH": "htpasswd"}, trust={"SSL_CERT_DIR": "/credentials"}
    )

    assert variables["REGISTRY_AUTH"] == "htpasswd"
    assert variables["SSL_CERT_DIR"] == "/credentials"


def test_a_cache_that_is_closed_is_probed_where_it_asks_nobody_who_he_is() -> None:
    open_to_all = container(trust={"SSL_CERT_DIR": "/credentials"}).inputs["healthcheck"]
    closed = container(access={"REGISTRY_AUTH": "htpasswd"}).inputs["healthcheck"]

    assert "http://127.0.0.1:5000/v2/" in open_to_all["tests"][1]
    assert "http://127.0.0.1:5001/debug/health" in closed["tests"][1]


def test_marks_are_on_the_container_and_not_on_the_volume() -> None:
    graph = declare(marks={"ca": "PEM"})

    mark = {"label": "ca", "value": "PEM"}
    assert mark in graph.one(CONTAINER, "quay.io-container").inputs["labels"]
    assert mark not in graph.one(VOLUME, "quay.io-storage").inputs["labels"]
