from typing import Any

import pytest

from tests.unit.components.certificates import authority
from tests.unit.components.declared_caches import S3_KEYS, declare, environment, files
from tests.unit.components.stack_graph import VOLUME, Graph, Secret

UPSTREAMS = {"upstreams": {"quay.io": None}}


def over_s3(host: str = "quay.io", **settings: Any) -> Graph:
    upstream = {} if host == "quay.io" else {"port": 5000, "remoteUrl": "http://registry.test"}
    storage = {"kind": "s3", "bucket": "caches", **settings}
    return declare({"upstreams": {host: upstream}, "storage": storage}, secrets={"s3Keys": S3_KEYS})


def variables_of_storage(graph: Graph) -> dict[str, str]:
    """The environment variables that a registry on a volume does not have."""
    over_volume = environment(declare(UPSTREAMS))
    return {name: value for name, value in environment(graph).items() if name not in over_volume}


# Object stores


def test_the_environment_configures_the_object_store() -> None:
    graph = over_s3()

    assert "quay.io-storage" not in graph.names(VOLUME)
    assert variables_of_storage(graph) == {
        "REGISTRY_STORAGE": "s3",
        "REGISTRY_STORAGE_S3_BUCKET": "caches",
        "REGISTRY_STORAGE_S3_REGION": "us-east-1",
        "REGISTRY_STORAGE_S3_ROOTDIRECTORY": "/quay.io",
        "REGISTRY_STORAGE_S3_FORCEPATHSTYLE": "true",
        "REGISTRY_STORAGE_REDIRECT": "{disable: true}",
        "REGISTRY_HEALTH_STORAGEDRIVER_ENABLED": "false",
        "AWS_SHARED_CREDENTIALS_FILE": "/credentials/s3-keys",
    }


@pytest.mark.parametrize(
    ("host", "prefix", "folder"),
    [
        ("quay.io", None, "quay.io"),
        ("quay.io", "team", "team/quay.io"),
        ("registry.test:5000", "team", "team/registry.test_5000"),
    ],
)
def test_each_cache_has_its_own_folder_in_the_bucket(
    host: str, prefix: str | None, folder: str
) -> None:
    graph = over_s3(host, prefix=prefix)

    assert environment(graph, host)["REGISTRY_STORAGE_S3_ROOTDIRECTORY"] == f"/{folder}"
    assert graph.outputs["caches"][host]["storage"] == f"s3://caches/{folder}"


def test_the_ca_of_the_store_is_trusted() -> None:
    store = authority("store").certificate
    graph = over_s3(endpoint="https://s3.test", ca=store)

    assert environment(graph)["SSL_CERT_DIR"] == "/credentials"
    assert files(graph)["authorities.crt"] == store
    assert "SSL_CERT_DIR" not in environment(over_s3())


@pytest.mark.parametrize(
    ("written", "variables"),
    [
        ({"endpoint": "https://s3.test"}, {"REGIONENDPOINT": "https://s3.test", "SECURE": "true"}),
        ({"endpoint": "http://a:9000"}, {"REGIONENDPOINT": "http://a:9000", "SECURE": "false"}),
        ({"region": "eu-1", "pathStyle": False}, {"REGION": "eu-1", "FORCEPATHSTYLE": "false"}),
    ],
)
def test_storage_settings_reach_the_registry(
    written: dict[str, Any], variables: dict[str, str]
) -> None:
    found = variables_of_storage(over_s3(**written))

    assert {name: found[f"REGISTRY_STORAGE_S3_{name}"] for name in variables} == variables


# Credentials


def test_the_credentials_are_in_a_secret_file_only() -> None:
    graph = over_s3()

    assert not set(S3_KEYS.values()) & set(environment(graph).values())
    assert files(graph)["s3-keys"] == Secret(
        "[default]\n"
        f"aws_access_key_id = {S3_KEYS['accessKey']}\n"
        f"aws_secret_access_key = {S3_KEYS['secretKey']}\n"
    )
