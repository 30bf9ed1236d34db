import asyncio
import configparser
from typing import Any

import pulumi
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.storage import s3_credentials
from tests.unit.components.certificates import authority
from tests.unit.components.declared_caches import S3_KEYS, declare
from tests.unit.components.stack_graph import CONTAINER, VOLUME, Graph, Secret

UPSTREAMS = {"upstreams": {"quay.io": None}}


def over_s3(host: str = "quay.io", **settings: Any) -> Graph:
    upstream = {} if host == "quay.io" else {"port": 5000, "remoteUrl": "http://registry.test"}
    storage = {"kind": "s3", "bucket": "caches", **settings}
    return declare({"upstreams": {host: upstream}, "storage": storage}, secrets={"s3Keys": S3_KEYS})


def environment(graph: Graph, host: str = "quay.io") -> dict[str, str]:
    envs = graph.one(CONTAINER, f"{host}-container").inputs["envs"]
    return dict(variable.split("=", 1) for variable in envs)


def variables_of_storage(graph: Graph) -> dict[str, str]:
    """The environment variables that a registry on a volume does not have."""
    over_volume = environment(declare(UPSTREAMS))
    return {name: value for name, value in environment(graph).items() if name not in over_volume}


# Object stores


def test_the_environment_of_a_registry_names_its_object_store() -> None:
    assert variables_of_storage(over_s3()) == {
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
    ("endpoint", "secure"), [("https://s3.test", "true"), ("http://10.0.0.1:9000", "false")]
)
def test_a_store_other_than_amazons_has_an_endpoint(endpoint: str, secure: str) -> None:
    variables = variables_of_storage(over_s3(endpoint=endpoint))

    assert variables["REGISTRY_STORAGE_S3_REGIONENDPOINT"] == endpoint
    assert variables["REGISTRY_STORAGE_S3_SECURE"] == secure


def test_the_settings_of_the_bucket_reach_the_registry() -> None:
    variables = variables_of_storage(over_s3(region="eu-west-1", pathStyle=False))

    assert variables["REGISTRY_STORAGE_S3_REGION"] == "eu-west-1"
    assert variables["REGISTRY_STORAGE_S3_FORCEPATHSTYLE"] == "false"


@pytest.mark.parametrize(
    ("host", "prefix", "folder"),
    [
        ("quay.io", None, "quay.io"),
        ("quay.io", "team", "team/quay.io"),
        ("registry.test:5000", "team", "team/registry.test_5000"),
    ],
)
def test_each_cache_has_a_folder_of_its_own_in_the_bucket(
    host: str, prefix: str | None, folder: str
) -> None:
    graph = over_s3(host, prefix=prefix)

    assert environment(graph, host)["REGISTRY_STORAGE_S3_ROOTDIRECTORY"] == f"/{folder}"
    assert graph.outputs["caches"][host]["storage"] == f"s3://caches/{folder}"


def test_only_the_private_files_are_in_a_volume() -> None:
    graph = over_s3()

    assert graph.names(VOLUME) == ["anonymous-volume"]
    (mounted,) = graph.one(CONTAINER, "quay.io-container").inputs["volumes"]
    assert mounted["containerPath"] == "/credentials"


def test_no_credentials_are_in_an_environment() -> None:
    for preview in (False, True):
        graph = declare(
            {**UPSTREAMS, "storage": {"kind": "s3", "bucket": "caches"}},
            secrets={"s3Keys": S3_KEYS},
            preview=preview,
        )
        variables = environment(graph)

        assert not [name for name in variables if "KEY" in name]
        assert not set(S3_KEYS.values()) & set(variables.values())


def test_the_ca_of_a_store_is_trusted_in_addition_to_those_of_the_image() -> None:
    store = authority("store").certificate
    graph = over_s3(endpoint="https://s3.test", ca=store)

    uploads = graph.one(CONTAINER, "anonymous-writer").inputs["uploads"]
    assert environment(graph)["SSL_CERT_DIR"] == "/credentials"
    assert {one["file"]: one["content"] for one in uploads}["/credentials/authorities.crt"] == (
        store
    )
    assert "SSL_CERT_DIR" not in environment(over_s3())


# Credentials


def test_the_credentials_are_in_a_secret_file() -> None:
    uploads = over_s3().one(CONTAINER, "anonymous-writer").inputs["uploads"]

    content = {one["file"]: one["content"] for one in uploads}["/credentials/s3-keys"]
    assert content == Secret(
        "[default]\n"
        f"aws_access_key_id = {S3_KEYS['accessKey']}\n"
        f"aws_secret_access_key = {S3_KEYS['secretKey']}\n"
    )


KEYS = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1)


@given(access=KEYS, secret=KEYS)
def test_any_credentials_are_read_back_unchanged(access: str, secret: str) -> None:
    async def content() -> str:
        keys = pulumi.Output.secret({"accessKey": access, "secretKey": secret})
        return await s3_credentials(keys).apply(lambda known: known.file).future() or ""

    parser = configparser.RawConfigParser()
    parser.read_string(asyncio.run(content()))

    assert dict(parser["default"]) == {
        "aws_access_key_id": access,
        "aws_secret_access_key": secret,
    }
