import base64
from typing import Any

import pytest

from components import credential_helper, swarm
from components.names import in_names, service_name
from components.storage import WRITABLE
from tests.unit.components.declared_caches import (
    ON_SWARM,
    S3_KEYS,
    declare,
    environment,
    on_swarm,
)
from tests.unit.components.stack_graph import (
    CACHING_PROXY,
    CONTAINER,
    CREDENTIAL_HELPER,
    FILES_IN_SWARM,
    NETWORK,
    SECRET,
    SERVICE,
    VOLUME,
    Declared,
    Graph,
    Secret,
)

# Only caches on every node have fronts.
SOME_NODES: dict[str, Any] = {"placement": {"kind": "swarm", "replicas": 3}}
ONE_NODE: dict[str, Any] = {"placement": {"kind": "swarm", "replicas": 1}, "storage": {}}


def service(graph: Graph, host: str = "quay.io") -> Declared:
    return graph.one(SERVICE, f"{host}-service")


def task(graph: Graph) -> Any:
    return service(graph).inputs["taskSpec"]


def container(graph: Graph) -> Any:
    return task(graph)["containerSpec"]


# Resources


@pytest.mark.parametrize("preview", [False, True])
def test_a_swarm_has_one_service_per_upstream_and_no_containers(*, preview: bool) -> None:
    graph = on_swarm(preview=preview, **SOME_NODES)

    assert graph.names(CACHING_PROXY) == ["docker.io", "quay.io"]
    assert graph.names(SERVICE) == ["docker.io-service", "quay.io-service"]
    assert graph.names(FILES_IN_SWARM) == ["anonymous"]
    assert service(graph).parent == "quay.io"
    for kind in (CONTAINER, VOLUME, CREDENTIAL_HELPER):
        assert graph.names(kind) == []


def test_swarm_and_engine_have_the_same_outputs() -> None:
    assert on_swarm().outputs["caches"]["quay.io"] == {
        "endpoint": "http://caches.test:5002",
        "name": "registry-dev-quay-io",
        "storage": "s3://caches/quay.io",
        "image": "registry:3.1.2",
    }
    assert declare({"upstreams": {"quay.io": None}}).outputs["caches"]["quay.io"].keys() == (
        {"endpoint", "name", "storage", "image"}
    )


def test_the_network_is_an_attachable_overlay() -> None:
    (network,) = on_swarm().all(NETWORK)

    assert network.inputs["driver"] == "overlay"
    assert network.inputs["attachable"] is True
    assert [hook.__name__ for hook in network.before_create] == ["before_network"]
    assert task(on_swarm())["networksAdvanceds"] == [{"id": "network-id"}]


# Nodes


@pytest.mark.parametrize(
    ("placement", "mode", "limits"),
    [
        ({}, {"global": True}, {"constraints": []}),
        ({"replicas": 3}, {"replicated": {"replicas": 3}}, {"maxReplicas": 1}),
        (
            {"nodeLabels": {"cache": "true", "a.b": "x"}},
            {"global": True},
            {"constraints": ["node.labels.a.b==x", "node.labels.cache==true"]},
        ),
    ],
)
def test_caches_run_on_every_node_or_on_selected_ones(
    placement: dict[str, Any], mode: dict[str, Any], limits: dict[str, Any]
) -> None:
    graph = on_swarm(placement={"kind": "swarm", **placement})

    assert service(graph).inputs["mode"] == mode
    assert task(graph)["placement"].items() >= limits.items()


# Ports


@pytest.mark.parametrize(
    ("publish", "endpoint", "port"),
    [({}, "dnsrr", "host"), ({"publish": "mesh"}, "vip", "ingress")],
)
def test_publish_selects_node_ports_or_the_routing_mesh(
    publish: dict[str, str], endpoint: str, port: str
) -> None:
    graph = on_swarm(placement={"kind": "swarm", **publish})

    assert service(graph).inputs["endpointSpec"] == {
        "mode": endpoint,
        "ports": [
            {"targetPort": 5000, "publishedPort": 5002, "protocol": "tcp", "publishMode": port}
        ],
    }


# Process


def test_a_registry_resolves_extra_hosts_on_an_engine_and_on_a_swarm() -> None:
    extra: dict[str, Any] = {"extraHosts": {"b.test": "10.0.0.2", "a.test": "10.0.0.1"}}
    wanted = [{"host": "a.test", "ip": "10.0.0.1"}, {"host": "b.test", "ip": "10.0.0.2"}]

    on_engine = declare({"upstreams": {"quay.io": None}, **extra})
    assert on_engine.one(CONTAINER, "quay.io-registry").inputs["hosts"] == wanted
    assert "hosts" not in on_engine.one(CONTAINER, "quay.io-container").inputs
    of_service = on_swarm(**extra).one(SERVICE, "quay.io-registry").inputs
    assert of_service["taskSpec"]["containerSpec"]["hosts"] == wanted


def test_a_service_is_read_only_without_capabilities_and_not_root() -> None:
    inputs = container(on_swarm())

    assert inputs["readOnly"] is True
    assert inputs["capDrops"] == ["ALL"]
    assert inputs["user"] == "65532:65532"
    assert not {"capAdds", "privileges", "groups"} & inputs.keys()


def test_memory_and_logs_are_limited_and_a_task_always_restarts() -> None:
    logs = {"level": "debug", "maxSize": "1m", "maxFiles": 9}
    inputs = task(on_swarm(memoryLimit="64m", logs=logs))

    assert inputs["resources"] == {"limits": {"memoryBytes": 64 << 20}}
    assert inputs["logDriver"] == {
        "name": "json-file",
        "options": {"max-size": "1m", "max-file": "9"},
    }
    assert inputs["restartPolicy"]["condition"] == "any"


def test_the_health_check_never_depends_on_a_full_disk() -> None:
    of_service = container(on_swarm(**SOME_NODES))["healthcheck"]
    caches = {"upstreams": {"quay.io": None}, "offline": True}
    on_engine = declare(caches).one(CONTAINER, "quay.io-registry")

    assert of_service == {
        key: value for key, value in on_engine.inputs["healthcheck"].items() if key != "startPeriod"
    } | {"startPeriod": "0s"}
    on_node = container(on_swarm(**ONE_NODE))
    assert on_node["healthcheck"] == of_service
    assert WRITABLE not in of_service["tests"][1]


def test_a_volume_is_made_by_its_node_and_used_by_the_image_s_user() -> None:
    on_node = container(on_swarm(**ONE_NODE))

    assert on_node["mounts"] == [
        {"type": "volume", "source": "registry-dev-quay.io", "target": "/var/lib/registry"}
    ]
    assert container(on_swarm(**SOME_NODES))["mounts"] == []
    assert "user" not in on_node


def test_the_service_has_labels_and_its_containers_have_none() -> None:
    graph = on_swarm(**SOME_NODES)

    labels = {one["label"]: one["value"] for one in service(graph).inputs["labels"]}
    assert labels == {
        "talos-registry-cache.mirror": "http://caches.test:5002",
        "talos-registry-cache.stack": "dev",
        "talos-registry-cache.upstream": "quay.io",
    }
    assert "labels" not in container(graph)


def test_a_service_has_the_environment_of_a_container() -> None:
    of_service = container(on_swarm(**ONE_NODE))["env"]
    on_engine = declare({"upstreams": {"quay.io": None}})

    of_container = environment(on_engine)
    assert {name for name in of_container if of_service.get(name) != of_container[name]} == {
        "REGISTRY_HTTP_NET",
        "REGISTRY_HTTP_ADDR",
    }
    # Pulls in progress end before the Swarm stops the task.
    assert of_service.keys() - of_container.keys() == {"REGISTRY_HTTP_DRAINTIMEOUT"}


# Updates


def test_updates_go_node_by_node_and_roll_back_on_failure() -> None:
    declared = service(on_swarm(**SOME_NODES))
    inputs, in_container = declared.inputs, declared.inputs["taskSpec"]["containerSpec"]

    assert declared.delete_before_replace
    assert declared.before_create == (swarm.before_service,)
    # A pull in progress may end before its cache is stopped.
    assert in_container["env"]["REGISTRY_HTTP_DRAINTIMEOUT"] == "55s"
    assert in_container["stopGracePeriod"] == "1m"
    # Image IDs differ between nodes; names do not.
    assert in_container["image"] == "registry:3.1.2"
    assert inputs["name"] == "registry-dev-quay-io"
    assert inputs["updateConfig"]["parallelism"] == 1
    assert inputs["updateConfig"]["order"] == "stop-first"
    assert inputs["updateConfig"]["failureAction"] == "rollback"
    assert inputs["updateConfig"]["maxFailureRatio"] == "0"
    assert inputs["rollbackConfig"]["parallelism"] == 0


# Private files


def test_private_files_are_swarm_secrets_at_the_registry_s_paths() -> None:
    graph = on_swarm(**SOME_NODES)

    mounted = {one["fileName"]: one for one in container(graph)["secrets"]}
    assert mounted.keys() == {credential_helper.COMMAND, "/credentials/s3-keys"}
    assert mounted[credential_helper.COMMAND] == {
        "secretId": "registry-dev-anonymous-helper-id",
        "secretName": "registry-dev-anonymous-helper-1234567",
        "fileName": "/credentials/helper",
        "fileMode": 0o555,
    }
    assert mounted["/credentials/s3-keys"]["fileMode"] == 0o444


def test_a_swarm_secret_has_the_content_of_the_file_on_an_engine() -> None:
    graph = on_swarm()
    on_engine = declare({"upstreams": {"quay.io": None}}).one(CONTAINER, "anonymous-writer")

    data = graph.one(SECRET, "registry-dev-anonymous-helper").inputs["data"]
    assert isinstance(data, Secret)
    (upload,) = on_engine.inputs["uploads"]
    assert base64.b64decode(data.value).decode() == upload["content"]
    for secret in graph.all(SECRET):
        # Pulumi chooses the name, so that a replacement can exist beside it.
        assert "name" not in secret.inputs
        assert not secret.delete_before_replace
        assert secret.inputs["labels"] == [{"label": "talos-registry-cache.stack", "value": "dev"}]


def test_anonymous_upstreams_share_secrets_and_others_have_their_own() -> None:
    caches = {
        **ON_SWARM,
        **SOME_NODES,
        "upstreams": {"docker.io": {"username": "me"}, "quay.io": None, "ghcr.io": None},
    }
    graph = declare(
        caches,
        secrets={"passwords": {"docker.io": "hunter2"}, "s3Keys": S3_KEYS},
    )

    def names(host: str) -> set[str]:
        spec = service(graph, host).inputs["taskSpec"]["containerSpec"]
        return {one["secretName"].removesuffix("-1234567") for one in spec["secrets"]}

    assert names("quay.io") == names("ghcr.io")
    assert names("quay.io") == {f"registry-dev-anonymous-{file}" for file in ("helper", "s3-keys")}
    assert names("docker.io") == {
        f"registry-dev-docker.io-credentials-{file}" for file in ("helper", "s3-keys")
    }


def test_service_names_are_dns_labels() -> None:
    assert service_name("registry-dev-registry.k8s.io") == "registry-dev-registry-k8s-io"
    assert service_name(f"a-{in_names('registry.test:5000')}") == "a-registry-test-5000"


# Fronts


def both(graph: Graph) -> tuple[Declared, Declared]:
    """The front and the registry."""
    return service(graph), graph.one(SERVICE, "quay.io-registry")


def with_front(**front: Any) -> tuple[Declared, Declared]:
    return both(on_swarm(front=front))


def in_container(declared: Declared) -> Any:
    return declared.inputs["taskSpec"]["containerSpec"]


def test_a_front_has_the_name_and_port_of_the_cache_and_the_registry_has_no_port() -> None:
    graph = on_swarm(front={})
    before, registry = both(graph)

    assert graph.outputs["caches"]["quay.io"]["name"] == before.inputs["name"]
    assert before.inputs["name"] == "registry-dev-quay-io"
    assert [port["publishedPort"] for port in before.inputs["endpointSpec"]["ports"]] == [5002]
    assert registry.inputs["name"] == "registry-dev-quay-io-registry"
    assert "ports" not in registry.inputs["endpointSpec"]
    assert in_container(before)["image"] == "nginx:1.30.6-alpine"
    assert in_container(registry)["image"] == "registry:3.1.2"


def test_a_front_and_its_registry_share_a_volume_of_their_node_and_are_not_root() -> None:
    shared = {"type": "volume", "source": "registry-dev-quay.io-front", "target": "/tmp"}  # noqa: S108

    for one in map(in_container, with_front()):
        assert one["mounts"] == [shared]
        assert one["user"] == "65532:65532"
        assert one["capDrops"] == ["ALL"]
        assert one["readOnly"] is True


def test_a_new_registry_listens_before_the_running_one_stops() -> None:
    before, registry = with_front()

    assert before.inputs["updateConfig"]["order"] == "stop-first"
    assert registry.inputs["updateConfig"]["order"] == "start-first"
    # Each would remove the other's socket if they had the same one.
    assert in_container(registry)["env"]["REGISTRY_HTTP_ADDR"] == "/tmp/{{.Task.ID}}.sock"  # noqa: S108
    assert "/tmp/registry.sock" in in_container(registry)["healthcheck"]["tests"][1]  # noqa: S108


def test_a_front_finishes_running_pulls_before_it_stops() -> None:
    before, _ = with_front()

    # The signal that makes nginx wait for its clients.
    assert in_container(before)["stopSignal"] == "SIGQUIT"
    assert in_container(before)["stopGracePeriod"] == "1m"


def test_the_front_only_is_updated_when_its_configuration_changes() -> None:
    graph = on_swarm(front={})
    before, registry = both(graph)

    assert [one["fileName"] for one in in_container(before)["secrets"]] == [
        "/credentials/nginx.conf"
    ]
    assert "/credentials/nginx.conf" not in {
        one["fileName"] for one in in_container(registry)["secrets"]
    }
    labels = {one["label"]: one["value"] for one in before.inputs["labels"]}
    assert labels["talos-registry-cache.registry"] == registry.inputs["name"]
