from collections.abc import Mapping
from typing import Any

import pulumi
import pytest

from components import (
    ArgumentsError,
    OwnTls,
    RegistryCache,
    RegistryCacheArgs,
    S3Storage,
    Upstream,
    VolumeStorage,
)
from components.engine import EngineFacts
from tests.unit.components import stack_graph
from tests.unit.components.declared_caches import GATEWAY, engine_with, files
from tests.unit.components.stack_graph import CONTAINER, PASSWORD_FILE, Graph, Secret

QUAY = {"quay.io": Upstream(port=5002, remote_url="https://quay.io", username="me")}
PASSWORD = "hunter2"  # noqa: S105


def declare(*, preview: bool = False, **values: Any) -> Graph:
    """Run a program that declares caches and exports their outputs."""

    def program() -> None:
        made = {name: value() if callable(value) else value for name, value in values.items()}
        cache = RegistryCache("caches", RegistryCacheArgs(**made))
        for name, value in cache.outputs().items():
            pulumi.export(name, value)

    with engine_with(EngineFacts(GATEWAY, {})):
        return stack_graph.run(program, preview=preview)


def mistakes(**values: Any) -> list[str]:
    """The paths of the mistakes in arguments."""
    with pytest.raises(ArgumentsError) as refused:
        declare(**values)
    return [str(mistake).partition(": ")[0] for mistake in refused.value.mistakes]


def test_arguments_are_plain_values_and_models_with_python_names() -> None:
    graph = declare(
        upstreams=QUAY,
        passwords={"quay.io": PASSWORD},
        name_prefix="mine",
        storage=VolumeStorage(on_destroy="delete"),
        mirror_host="10.0.0.9",
        memory_limit="64m",
    )

    cache = graph.one(CONTAINER, "quay.io-container").inputs
    assert cache["name"] == "mine-quay.io"
    assert cache["memory"] == 64
    assert graph.outputs["mirrors"] == {"quay.io": "http://10.0.0.9:5002"}


@pytest.mark.parametrize(
    "passwords",
    [
        {"quay.io": PASSWORD},
        lambda: {"quay.io": pulumi.Output.secret(PASSWORD)},
        lambda: {"quay.io": pulumi.Output.from_input(PASSWORD)},
        # As programs in other languages send it.
        lambda: pulumi.Output.secret({"quay.io": PASSWORD}),
    ],
    ids=["text", "secret output", "output", "output of all"],
)
def test_a_password_may_be_an_output_and_is_always_a_secret(passwords: Any) -> None:
    graph = declare(upstreams=QUAY, passwords=passwords)

    content = files(graph, "quay.io-credentials")["helper"]
    assert isinstance(content, Secret)
    assert PASSWORD in content.value
    assert PASSWORD not in repr(graph).replace(repr(content), "")


@pytest.mark.parametrize(
    "readers", [{"adam": PASSWORD}, lambda: pulumi.Output.secret({"adam": PASSWORD})]
)
def test_readers_and_s3_keys_may_be_outputs(readers: Any) -> None:
    graph = declare(
        upstreams={"quay.io": {"port": 5002}},
        tls=OwnTls(),
        readers=readers,
        storage=S3Storage(kind="s3", bucket="caches"),
        s3_keys=lambda: pulumi.Output.secret({"accessKey": "a", "secretKey": PASSWORD}),
    )

    keys = files(graph)["s3-keys"]
    assert isinstance(keys, Secret)
    assert PASSWORD in keys.value
    assert graph.outputs["reader"] == Secret({"username": "adam", "password": PASSWORD})
    assert graph.all(PASSWORD_FILE)[0].inputs["readers"] == Secret({"adam": PASSWORD})


WRONG: list[tuple[Mapping[str, Any], list[str]]] = [
    ({}, ["upstreams"]),
    (
        {"upstreams": {"quay.io": {"port": 0, "usrname": "me"}}},
        ['upstreams["quay.io"].port', 'upstreams["quay.io"].usrname'],
    ),
    ({"upstreams": {"quay.io": {"port": 5}, "gcr.io": {"port": 5}}}, ['upstreams["gcr.io"].port']),
    ({"upstreams": QUAY}, ['passwords["quay.io"]']),
    ({"upstreams": {"quay.io": None}, "passwords": {"quay.io": "x"}}, ['passwords["quay.io"]']),
    ({"upstreams": QUAY, "passwords": {"quay.io": 5}}, ['passwords["quay.io"]']),
    ({"upstreams": {"quay.io": None}, "readers": {"adam": "x"}}, ["readers"]),
    ({"upstreams": {"quay.io": None}, "storage": {"kind": "s3"}}, ["storage.bucket"]),
    ({"upstreams": {"quay.io": None}, "offline": "5", "pasword": "x"}, ["offline", "pasword"]),
    (
        {"upstreams": {"quay.io": {"port": 5, "remoteUrl": f"http://{GATEWAY}:5"}}},
        ['upstreams["quay.io"].remoteUrl'],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("values", "paths"), WRONG)
def test_invalid_arguments_are_reported_with_their_paths(
    values: Mapping[str, Any], paths: list[str]
) -> None:
    assert mistakes(**values) == paths


def test_no_secret_is_in_a_message_or_a_representation() -> None:
    with pytest.raises(ArgumentsError) as refused:
        declare(upstreams=QUAY, passwords={"quay.io": PASSWORD, "gcr.io": PASSWORD})
    shown: list[str] = []
    stack_graph.run(
        lambda: shown.append(
            repr(RegistryCacheArgs(upstreams=QUAY, passwords={"quay.io": PASSWORD}))
        )
    )

    assert "gcr.io" in str(refused.value)
    assert PASSWORD not in str(refused.value)
    assert PASSWORD not in shown[0]
