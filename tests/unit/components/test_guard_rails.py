from collections.abc import Sequence
from typing import Any

import pulumi
import pulumi_docker as docker
import pytest

from components.guard_rails import GuardRailError, broken_rules, put_up
from tests.unit.components import stack_graph
from tests.unit.components.stack_graph import CONTAINER, SERVICE, Graph

HARDENED: dict[str, Any] = {
    "image": "registry:3.1.2",
    "restart": "always",
    "log_opts": {"max-size": "10m", "max-file": "3"},
    "read_only": True,
    "security_opts": ["no-new-privileges"],
}


def declare(publish_on: Sequence[str] | None = None, **props: Any) -> Graph:
    """A program with one container, behind the guard rails."""

    def program() -> None:
        put_up(publish_on)
        docker.Container("one", **(HARDENED | props))

    return stack_graph.run(program)


def refused(publish_on: Sequence[str] | None = None, **props: Any) -> str:
    with pytest.raises(GuardRailError) as error:
        declare(publish_on, **props)
    return str(error.value)


def port(ip: str | None) -> list[docker.ContainerPortArgs]:
    return [docker.ContainerPortArgs(internal=5000, external=5000, ip=ip)]


def test_a_container_that_keeps_to_all_rules_is_declared() -> None:
    graph = declare(ports=port("127.0.0.1"), envs=["REGISTRY_LOG_LEVEL=info"])

    assert graph.names(CONTAINER) == ["one"]


@pytest.mark.parametrize("ip", ["0.0.0.0", None])
def test_a_port_on_all_addresses_is_refused_unless_the_stack_names_them(ip: str | None) -> None:
    assert "port 5000 is open on 0.0.0.0" in refused(ports=port(ip))
    assert "port 5000 is open on 0.0.0.0" in refused(["127.0.0.1"], ports=port(ip))

    declare(["0.0.0.0"], ports=port(ip))


@pytest.mark.parametrize(
    "variable",
    ["REGISTRY_PROXY_PASSWORD=hunter2", "API_TOKEN=abc", "URL=https://me:hunter2@registry.test"],
)
def test_a_credential_in_an_environment_is_refused_and_not_shown(variable: str) -> None:
    message = refused(envs=[variable])

    assert message.startswith("docker:index/container:Container one: ")
    assert "has a credential" in message
    assert "hunter2" not in message


@pytest.mark.parametrize(
    ("props", "rule"),
    [
        ({"restart": "no"}, "not restarted with the engine"),
        ({"log_opts": {"max-size": "10m"}}, "log is not bounded"),
        ({"read_only": False}, "not read-only"),
        ({"privileged": True}, "not read-only"),
        ({"security_opts": []}, "can gain privileges"),
    ],
)
def test_a_container_that_is_not_hardened_is_refused(props: dict[str, Any], rule: str) -> None:
    assert rule in refused(**props)


def test_all_broken_rules_are_named_at_once() -> None:
    message = refused(restart="no", ports=port("0.0.0.0"), envs=["SECRET=1"])

    assert message.count(";") == 2


def test_a_container_that_never_runs_need_not_be_hardened() -> None:
    declare(must_run=False, restart="no", read_only=False, log_opts={}, security_opts=[])

    assert "has a credential" in refused(must_run=False, envs=["SECRET=1"])


# Services of a Swarm


def service(publish_on: Sequence[str] | None = ("0.0.0.0",), **changed: Any) -> Graph:
    """A program with one service, behind the guard rails."""
    of_container: dict[str, Any] = {"image": "registry:3.1.2", "read_only": True, "env": {"A": "b"}}
    of_task: dict[str, Any] = {
        "restart_policy": docker.ServiceTaskSpecRestartPolicyArgs(condition="any"),
        "log_driver": docker.ServiceTaskSpecLogDriverArgs(
            name="json-file", options={"max-size": "10m", "max-file": "3"}
        ),
    }
    of_container |= {key: value for key, value in changed.items() if key not in of_task}
    of_task |= {key: value for key, value in changed.items() if key in of_task}

    def program() -> None:
        put_up(publish_on)
        docker.Service(
            "one",
            task_spec=docker.ServiceTaskSpecArgs(
                container_spec=docker.ServiceTaskSpecContainerSpecArgs(**of_container), **of_task
            ),
            endpoint_spec=docker.ServiceEndpointSpecArgs(
                ports=[docker.ServiceEndpointSpecPortArgs(target_port=5000, published_port=5002)]
            ),
        )

    return stack_graph.run(program)


def refused_service(publish_on: Sequence[str] | None = ("0.0.0.0",), **changed: Any) -> str:
    with pytest.raises(GuardRailError) as error:
        service(publish_on, **changed)
    return str(error.value)


def test_a_service_that_keeps_to_all_rules_is_declared() -> None:
    assert service().names(SERVICE) == ["one"]


@pytest.mark.parametrize("publish_on", [None, ["127.0.0.1"]])
def test_a_service_has_open_ports_only_where_the_stack_names_all_addresses(
    publish_on: Sequence[str] | None,
) -> None:
    assert "port 5002 is open on 0.0.0.0, as all of a Swarm's are" in refused_service(publish_on)


@pytest.mark.parametrize(
    "env",
    [
        {"REGISTRY_STORAGE_S3_SECRETKEY": "hunter2"},
        {"REGISTRY_PROXY_PASSWORD": "hunter2"},
        {"URL": "https://me:hunter2@registry.test"},
    ],
)
def test_a_credential_in_the_environment_of_a_service_is_refused_and_not_shown(
    env: dict[str, str],
) -> None:
    message = refused_service(env=env)

    assert message.startswith("docker:index/service:Service one: ")
    assert "has a credential" in message
    assert "hunter2" not in message


def test_the_place_of_a_private_file_is_no_credential() -> None:
    variable = "AWS_SHARED_CREDENTIALS_FILE", "/credentials/s3-keys"

    service(env=dict([variable]))
    declare(envs=["=".join(variable)])


@pytest.mark.parametrize(
    ("changed", "rule"),
    [
        ({"image": "registry:latest"}, "is not pinned"),
        ({"read_only": False}, "not read-only"),
        ({"restart_policy": None}, "not restarted whatever ended it"),
        (
            {"restart_policy": docker.ServiceTaskSpecRestartPolicyArgs(condition="none")},
            "not restarted whatever ended it",
        ),
        ({"log_driver": None}, "log is not bounded"),
        (
            {"log_driver": docker.ServiceTaskSpecLogDriverArgs(name="json-file", options={})},
            "log is not bounded",
        ),
    ],
)
def test_a_service_that_is_not_hardened_is_refused(changed: dict[str, Any], rule: str) -> None:
    assert rule in refused_service(**changed)


# Images


@pytest.mark.parametrize("name", ["registry", "registry:latest", "host:5000/registry"])
def test_an_image_that_moves_is_refused(name: str) -> None:
    def program() -> None:
        put_up(None)
        docker.RemoteImage("image", name=name)

    with pytest.raises(GuardRailError, match="is not pinned"):
        stack_graph.run(program)


@pytest.mark.parametrize(
    "name", ["registry:3.1.2", "host:5000/registry:3", f"registry@sha256:{'0' * 64}"]
)
def test_an_image_of_a_release_or_digest_is_not(name: str) -> None:
    def program() -> None:
        put_up(None)
        docker.RemoteImage("image", name=name)

    stack_graph.run(program)


def test_what_is_known_only_later_is_not_judged() -> None:
    image = docker.RemoteImage.__new__(docker.RemoteImage)

    assert list(broken_rules(image, {"name": pulumi.Output.__new__(pulumi.Output)}, ())) == []
