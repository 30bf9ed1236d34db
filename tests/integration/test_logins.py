"""Upstreams whose password comes from a command or from a docker login, at each `up`."""

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
from docker import DockerClient
from pulumi.automation import CommandError

from tests.integration.support import belongings, http_pull
from tests.integration.support.gate import Gate, guarding
from tests.integration.support.stack import CacheStack, stack, upstreams
from tests.integration.support.upstream import Upstream

BY_COMMAND, BY_DOCKER = "command.example", "docker.example"
USERNAME = "AWS"
FIRST, SECOND = "first-Xk3vQw7TzB2m", "second-fH7pXq2mVz9K"


@dataclass(frozen=True, slots=True)
class Company:
    """A stack, and a registry whose password is in files of this machine.

    Attributes:
        stack: the stack.
        gate: the registry.
        token: the file that the password command prints.
        config: the configuration of Docker.
    """

    stack: CacheStack
    gate: Gate
    token: Path
    config: Path

    def change(self, password: str) -> None:
        """Change the password at the registry, and in the files."""
        self.gate.password = password
        self.token.write_text(f"{password}\nexpires soon\n")
        auth = base64.b64encode(f"{USERNAME}:{password}".encode()).decode()
        host = self.gate.url.removeprefix("https://")
        self.config.write_text(json.dumps({"auths": {host: {"auth": auth}}}))


@pytest.fixture(scope="module")
def company(
    tmp_path_factory: pytest.TempPathFactory, engine: DockerClient, upstream: Upstream
) -> Iterator[Company]:
    folder = tmp_path_factory.mktemp("company")
    token, config = folder / "token", folder / "config.json"
    with guarding(upstream, "basic", USERNAME) as gate, pytest.MonkeyPatch.context() as patched:
        patched.setenv("DOCKER_CONFIG", str(folder))
        registries = upstreams(gate.url, BY_COMMAND, BY_DOCKER)
        by_command = {"username": USERNAME, "passwordCommand": ["cat", str(token)]}
        registries[BY_COMMAND] |= {"ca": gate.ca, **by_command}
        registries[BY_DOCKER] |= {"ca": gate.ca, "credentials": "docker"}
        with stack(folder, engine, {"upstreams": registries}) as made:
            found = Company(made, gate, token, config)
            assert not token.exists()
            made.preview()
            found.change(FIRST)
            made.up()
            yield found


@pytest.mark.parametrize("registry", [BY_COMMAND, BY_DOCKER])
def test_the_password_is_that_of_the_command_or_of_the_docker_login(
    company: Company, upstream: Upstream, registry: str
) -> None:
    image = upstream.push_index()

    assert http_pull.pull(company.stack.endpoint(registry), image).digest == image.digest


def test_the_next_up_takes_a_new_password_over_and_replaces_no_cache(
    company: Company, upstream: Upstream
) -> None:
    made, image = company.stack, upstream.push_index()
    assert set(made.up()) == {"same"}
    before = made.ids()
    company.change(SECOND)
    with pytest.raises(httpx2.HTTPStatusError):
        http_pull.pull(made.endpoint(BY_COMMAND), image)

    made.up()

    for registry in (BY_COMMAND, BY_DOCKER):
        assert http_pull.pull(made.endpoint(registry), image).digest == image.digest
    assert made.replaced(before) == {
        f"{made.prefix}-{registry}-credentials" for registry in (BY_COMMAND, BY_DOCKER)
    }


def test_a_failing_command_changes_nothing(company: Company) -> None:
    before, content = company.stack.ids(), company.token.read_text()
    company.token.unlink()

    with pytest.raises(CommandError) as error:
        company.stack.up()

    company.token.write_text(content)
    assert f"cat {company.token} ended with exit code 1" in str(error.value)
    assert "Traceback" not in str(error.value)
    assert company.stack.ids() == before


def test_state_and_inspections_show_no_password(company: Company, engine: DockerClient) -> None:
    found = belongings.containers(engine, company.stack.name)
    assert found
    shown = company.stack.export() + json.dumps([one.attrs for one in found])

    assert "ciphertext" in shown
    assert not [password for password in (FIRST, SECOND) if password in shown]
