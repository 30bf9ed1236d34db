import base64
from typing import Any

import pytest

from components import credential_helper, swarm
from components.names import in_names, service_name
from components.settings import SettingsError
from components.storage import WRITABLE
from tests.unit.components.declared_caches import ON_SWARM, declare, on_swarm
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

ONE_NODE: dict[str, Any] = {"placement": {"kind": "swarm", "replicas": 1}, "storage": {}}


def service(graph: Graph, host: str = "quay.io") -> Declared:
    return graph.one(SERVICE, f"{host}-service")


def task(graph: Graph) -> Any:
    return service(graph).inputs["taskSpec"]


def container(graph: Graph) -> Any:
    return task(graph)["containerSpec"]


# What there is


@pytest.mark.parametrize("preview", [False, True])
def test_a_swarm_has_a_service_for_each_upstream_and_nothing_of_one_engine(
    *, preview: bool
) -> None:
    graph = on_swarm(preview=preview)

    assert graph.names(CACHING_PROXY) == ["docker.io", "quay.io"]
    assert graph.names(SERVICE) == ["docker.io-service", "quay.io-service"]
    assert graph.names(FILES_IN_SWARM) == ["anonymous"]
    assert service(graph).parent == "quay.io"
    for kind in (CONTAINER, VOLUME, CREDENTIAL_HELPER):
        assert graph.names(kind) == []


def test_a_stack_tells_the_same_of_its_caches_wherever_they_run() -> None:
    assert on_swarm().outputs["caches"]["quay.io"] == {
        "endpoint": "http://caches.test:5002",
        "name": "registry-dev-quay-io",
        "storage": "s3://caches/quay.io",
        "image": "registry:3.1.2",
    }
    assert declare({"upstreams": {"quay.io": None}}).outputs["caches"]["quay.io"].keys() == (
        {"endpoint", "name", "storage", "image"}
    )


def test_the_network_reaches_over_all_nodes_and_lets_others_in() -> None:
    (network,) = on_swarm().all(NETWORK)

    assert network.inputs["driver"] == "overlay"
    assert network.inputs["attachable"] is True
    assert [hook.__name__ for hook in network.before_create] == ["before_network"]
    assert task(on_swarm())["networksAdvanceds"] == [{"id": "network-id"}]


def test_an_image_is_by_its_name_since_each_node_has_its_own_ids() -> None:
    assert container(on_swarm())["image"] == "registry:3.1.2"


# On which nodes


def test_every_node_runs_each_cache_by_default() -> None:
    graph = on_swarm()

    assert service(graph).inputs["mode"] == {"global": True}
    assert task(graph)["placement"] == {"constraints": []}


def test_a_number_of_nodes_run_one_of_each_cache() -> None:
    graph = on_swarm(placement={"kind": "swarm", "replicas": 3})

    assert service(graph).inputs["mode"] == {"replicated": {"replicas": 3}}
    assert task(graph)["placement"]["maxReplicas"] == 1


def test_only_nodes_with_all_labels_run_them() -> None:
    graph = on_swarm(placement={"kind": "swarm", "nodeLabels": {"cache": "true", "a.b": "x"}})

    assert task(graph)["placement"]["constraints"] == [
        "node.labels.a.b==x",
        "node.labels.cache==true",
    ]


# How it is reached


@pytest.mark.parametrize(
    ("publish", "endpoint", "port"), [("host", "dnsrr", "host"), ("mesh", "vip", "ingress")]
)
def test_ports_are_open_on_each_node_or_by_the_mesh(publish: str, endpoint: str, port: str) -> None:
    graph = on_swarm(placement={"kind": "swarm", "publish": publish})

    assert service(graph).inputs["endpointSpec"] == {
        "mode": endpoint,
        "ports": [
            {"targetPort": 5000, "publishedPort": 5002, "protocol": "tcp", "publishMode": port}
        ],
    }


def test_ports_are_open_on_each_node_unless_it_is_said() -> None:
    assert service(on_swarm()).inputs["endpointSpec"]["mode"] == "dnsrr"


# Its process


def test_a_service_has_no_more_rights_than_it_needs() -> None:
    inputs = container(on_swarm())

    assert inputs["readOnly"] is True
    assert inputs["capDrops"] == ["ALL"]
    assert not {"capAdds", "privileges", "groups"} & inputs.keys()


def test_it_is_bounded_and_starts_again_whatever_ended_it() -> None:
    logs = {"level": "debug", "maxSize": "1m", "maxFiles": 9}
    inputs = task(on_swarm(memoryLimit="64m", logs=logs))

    assert inputs["resources"] == {"limits": {"memoryBytes": 64 << 20}}
    assert inputs["logDriver"] == {
        "name": "json-file",
        "options": {"max-size": "1m", "max-file": "9"},
    }
    assert inputs["restartPolicy"]["condition"] == "any"


def test_it_is_probed_as_a_container_is() -> None:
    of_service = container(on_swarm())["healthcheck"]
    caches = {"upstreams": {"quay.io": None}, "offline": True}
    on_engine = declare(caches).one(CONTAINER, "quay.io-container")

    assert of_service == {
        key: value for key, value in on_engine.inputs["healthcheck"].items() if key != "startPeriod"
    } | {"startPeriod": "0s"}


def test_a_service_runs_as_the_user_of_caches_but_on_a_volume_that_its_node_makes() -> None:
    on_node = on_swarm(**ONE_NODE)

    assert container(on_swarm())["user"] == "65532:65532"
    assert "user" not in container(on_node)


def test_a_swarm_kills_no_cache_whose_disk_is_full() -> None:
    on_node = on_swarm(**ONE_NODE)

    assert container(on_node)["healthcheck"] == container(on_swarm())["healthcheck"]
    assert WRITABLE not in container(on_node)["healthcheck"]["tests"][1]


def test_a_service_has_the_labels_and_its_containers_none_that_would_replace_it() -> None:
    graph = on_swarm()

    labels = {one["label"]: one["value"] for one in service(graph).inputs["labels"]}
    assert labels == {
        "talos-registry-cache.mirror": "http://caches.test:5002",
        "talos-registry-cache.stack": "dev",
        "talos-registry-cache.upstream": "quay.io",
    }
    assert "labels" not in container(graph)


def test_it_does_what_a_container_does() -> None:
    changed = {"ttl": "720h", **ONE_NODE}
    of_service = container(on_swarm(**changed))["env"]
    on_engine = declare({"upstreams": {"quay.io": None}, "ttl": "720h"})

    envs = on_engine.one(CONTAINER, "quay.io-container").inputs["envs"]
    assert dict(variable.split("=", 1) for variable in envs).items() <= of_service.items()
    # And ends what is being pulled before the Swarm would.
    assert of_service.keys() - {variable.split("=", 1)[0] for variable in envs} == {
        "REGISTRY_HTTP_DRAINTIMEOUT"
    }


def test_a_volume_is_that_of_the_node_under_the_name_that_an_engine_s_has() -> None:
    assert container(on_swarm(**ONE_NODE))["mounts"] == [
        {"type": "volume", "source": "registry-dev-quay.io", "target": "/var/lib/registry"}
    ]
    assert container(on_swarm())["mounts"] == []


# Updates


def test_nodes_are_updated_one_after_the_other_and_all_back_if_one_fails() -> None:
    inputs = service(on_swarm()).inputs

    assert inputs["updateConfig"]["parallelism"] == 1
    assert inputs["updateConfig"]["order"] == "stop-first"
    assert inputs["updateConfig"]["failureAction"] == "rollback"
    assert inputs["updateConfig"]["maxFailureRatio"] == "0"
    assert inputs["rollbackConfig"]["parallelism"] == 0


def test_what_is_being_pulled_may_end_before_a_node_s_cache_is_stopped() -> None:
    inputs = container(on_swarm())

    assert inputs["env"]["REGISTRY_HTTP_DRAINTIMEOUT"] == "55s"
    assert inputs["stopGracePeriod"] == "1m"


def test_a_service_makes_way_for_its_successor() -> None:
    one = service(on_swarm())

    assert one.delete_before_replace
    assert one.before_create == (swarm.before_service,)


# Private files


def test_private_files_are_secrets_of_the_swarm_at_the_place_that_the_registry_knows() -> None:
    graph = on_swarm()

    mounted = {one["fileName"]: one for one in container(graph)["secrets"]}
    assert mounted.keys() == {credential_helper.COMMAND, "/credentials/s3-keys"}
    assert mounted[credential_helper.COMMAND] == {
        "secretId": "registry-dev-anonymous-helper-id",
        "secretName": "registry-dev-anonymous-helper-1234567",
        "fileName": "/credentials/helper",
        "fileMode": 0o555,
    }
    assert mounted["/credentials/s3-keys"]["fileMode"] == 0o444


def test_a_secret_is_what_a_file_would_be() -> None:
    graph = on_swarm()
    on_engine = declare({"upstreams": {"quay.io": None}}).one(CONTAINER, "anonymous-writer")

    data = graph.one(SECRET, "registry-dev-anonymous-helper").inputs["data"]
    assert isinstance(data, Secret)
    (upload,) = on_engine.inputs["uploads"]
    assert base64.b64decode(data.value).decode() == upload["content"]


def test_a_secret_has_a_name_that_pulumi_ends_so_that_its_successor_can_be_there_too() -> None:
    for secret in on_swarm().all(SECRET):
        assert "name" not in secret.inputs
        assert not secret.delete_before_replace
        assert secret.inputs["labels"] == [{"label": "talos-registry-cache.stack", "value": "dev"}]


def test_caches_without_a_user_share_their_secrets_and_others_have_their_own() -> None:
    caches = {
        **ON_SWARM,
        "upstreams": {"docker.io": {"username": "me"}, "quay.io": None, "ghcr.io": None},
    }
    graph = declare(
        caches,
        secrets={
            "passwords": {"docker.io": "hunter2"},
            "s3Keys": {"accessKey": "a", "secretKey": "s"},
        },
    )

    def names(host: str) -> set[str]:
        spec = service(graph, host).inputs["taskSpec"]["containerSpec"]
        return {one["secretName"].removesuffix("-1234567") for one in spec["secrets"]}

    assert names("quay.io") == names("ghcr.io")
    assert names("quay.io") == {f"registry-dev-anonymous-{file}" for file in ("helper", "s3-keys")}
    assert names("docker.io") == {
        f"registry-dev-docker.io-credentials-{file}" for file in ("helper", "s3-keys")
    }


# Names


def test_a_service_has_a_name_that_is_one_of_dns() -> None:
    assert service_name("registry-dev-registry.k8s.io") == "registry-dev-registry-k8s-io"
    assert service_name(f"a-{in_names('registry.test:5000')}") == "a-registry-test-5000"
    assert service(on_swarm()).inputs["name"] == "registry-dev-quay-io"


def test_settings_that_a_swarm_cannot_follow_declare_nothing() -> None:
    with pytest.raises(SettingsError, match=r"caches\.ttl: found 720h"):
        on_swarm(ttl="720h")
