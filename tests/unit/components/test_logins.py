"""Logins that `up` gets from a command or from a docker login."""

import base64
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from components import ArgumentsError, dynamic_provider, logins
from components.logins import Login, LoginError
from tests.unit.components.declared_caches import declare, files
from tests.unit.components.parsed_settings import assert_refused, of
from tests.unit.components.stack_graph import UNKNOWN, Secret

PASSWORD = "hunter2"  # noqa: S105
# The command itself is shown.
PRINT = f"print('{PASSWORD[::-1]}'[::-1])"
QUAY = "quay.io-credentials"


def python(program: str) -> list[str]:
    """A command."""
    return [sys.executable, "-c", program]


def with_command(*command: str, **settings: Any) -> Mapping[str, Any]:
    upstream = {"username": "AWS", "passwordCommand": command}
    return {"upstreams": {"quay.io": upstream, "docker.io": None}, **settings}


def helper(caches: Mapping[str, Any], *, preview: bool = False) -> Any:
    """The credential helper of quay.io, which is always a secret."""
    content = files(declare(caches, preview=preview), QUAY)["helper"]
    assert isinstance(content, Secret)
    return content.value


# A command


def test_up_takes_the_password_from_the_first_line_that_the_command_prints() -> None:
    script = helper(with_command(*python(f"print('{PASSWORD}\\r\\nand more')")))

    assert json.dumps({"Username": "AWS", "Secret": PASSWORD}) in script


def test_a_preview_and_an_offline_stack_run_no_command(tmp_path: Path) -> None:
    touch = python(f"open({str(tmp_path / 'ran')!r}, 'w'); print(1)")

    assert helper(with_command(*touch), preview=True) == UNKNOWN
    offline = declare(with_command(*touch, offline=True))
    assert offline.outputs["caches"]["quay.io"]
    assert not (tmp_path / "ran").exists()
    declare(with_command(*touch))
    assert (tmp_path / "ran").exists()


def test_a_simulation_runs_no_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(dynamic_provider.SIMULATE, "1")

    caches = with_command("false")

    assert helper(caches) == helper(caches, preview=True)


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (python(f"{PRINT}; exit('not logged in')"), "code 1: not logged in"),
        (python(f"{PRINT}; exit(7)"), "ended with exit code 7"),
        (["/no/such/program"], "/no/such/program cannot be run"),
        (["a\0b"], "cannot be run: embedded null byte"),
        (python(""), "printed is empty"),
        (python(f"print(); {PRINT}"), "printed is empty"),
        (python("import sys; sys.stdout.buffer.write(b'hunter\\xff')"), "than UTF-8 text"),
    ],
)
def test_a_command_without_a_password_is_an_error_that_hides_what_it_printed(
    command: list[str], reason: str
) -> None:
    with pytest.raises(LoginError) as error:
        logins.of_command("AWS", command)

    assert reason in str(error.value)
    assert PASSWORD not in str(error.value)


def test_a_command_that_does_not_end_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logins, "COMMAND_WITHIN_S", 0.2)
    started = time.monotonic()

    # The child of the command keeps its output open.
    with pytest.raises(LoginError, match=r"has not ended after 0.2 s"):
        logins.of_command("AWS", ["sh", "-c", "sleep 20 & sleep 20"])

    assert time.monotonic() - started < 15


def test_all_failures_are_reported_with_their_paths_before_anything_is_declared(
    docker_config: Path,
) -> None:
    docker_config.write_text("{}")
    failing = {"username": "AWS", "passwordCommand": ["false"]}
    caches = {"upstreams": {"docker.io": failing, "quay.io": {"credentials": "docker"}}}

    with pytest.raises(ArgumentsError) as error:
        declare(caches)

    assert [one.path for one in error.value.mistakes] == [
        ("upstreams", "docker.io", "passwordCommand"),
        ("upstreams", "quay.io", "credentials"),
    ]


# A docker login


@pytest.fixture
def docker_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The configuration of Docker, which does not exist yet."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    return tmp_path / "config.json"


def auths(**of_host: Mapping[str, str]) -> str:
    return json.dumps({"auths": of_host})


BASIC = {"auth": base64.b64encode(f"me:{PASSWORD}".encode()).decode()}


@pytest.mark.parametrize(
    ("host", "key"),
    [
        ("quay.io", "quay.io"),
        ("quay.io", "https://quay.io/v2/"),
        ("docker.io", "https://index.docker.io/v1/"),
        ("registry.test:5000", "registry.test:5000"),
    ],
)
def test_a_docker_login_is_found_in_its_file(docker_config: Path, host: str, key: str) -> None:
    docker_config.write_text(auths(**{key: BASIC}))

    assert logins.of_docker(host) == Login("me", PASSWORD)
    assert PASSWORD not in repr(logins.of_docker(host))


@pytest.mark.parametrize("settings", [{"credsStore": "it"}, {"credHelpers": {"quay.io": "it"}}])
def test_a_docker_login_is_found_through_a_credential_helper(
    docker_config: Path, monkeypatch: pytest.MonkeyPatch, settings: Mapping[str, Any]
) -> None:
    docker_config.write_text(json.dumps(settings))
    program = docker_config.with_name("docker-credential-it")
    stored = json.dumps({"Username": "me", "Secret": PASSWORD})
    program.write_text(f'#!/bin/sh\n[ "$1 $(cat)" = "get quay.io" ] && echo \'{stored}\'\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")

    assert logins.of_docker("quay.io") == Login("me", PASSWORD)
    with pytest.raises(LoginError, match=r"gcr\.io"):
        logins.of_docker("gcr.io")


@pytest.mark.filterwarnings("ignore:docker-credential")
@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (None, "found no docker login of quay.io"),
        ("{}", "found no docker login of quay.io"),
        (auths(**{"gcr.io": BASIC}), "found no docker login of quay.io"),
        (auths(**{"quay.io": {"identitytoken": PASSWORD}}), "is an identity token"),
        (auths(**{"quay.io": {"auth": "%"}}), "cannot be read"),
        ("no JSON", "found no docker login of quay.io"),
        ("[]", "cannot be read"),
        (json.dumps({"credsStore": "no-such-helper"}), "cannot be read"),
    ],
)
def test_a_missing_docker_login_has_a_reason(
    docker_config: Path, config: str | None, reason: str
) -> None:
    if config is not None:
        docker_config.write_text(config)

    with pytest.raises(LoginError) as error:
        logins.of_docker("quay.io")

    assert reason in str(error.value)
    assert PASSWORD not in str(error.value)


@pytest.mark.parametrize(
    ("host", "remote_url", "login"),
    [
        ("docker.io", "https://registry-1.docker.io", "docker.io"),
        # The password for quay.io is not sent to another registry.
        ("quay.io", "https://mirror.test:5000", "mirror.test:5000"),
        ("registry.test", "https://registry.test", "registry.test"),
    ],
)
def test_the_login_is_that_of_the_registry_that_gets_the_password(
    host: str, remote_url: str, login: str
) -> None:
    assert logins.login_host(host, remote_url) == login


def test_a_cache_uses_a_docker_login_and_a_preview_needs_none(docker_config: Path) -> None:
    caches = {"upstreams": {"quay.io": {"credentials": "docker"}}}
    assert helper(caches, preview=True) == UNKNOWN
    docker_config.write_text(auths(**{"quay.io": BASIC}))

    assert json.dumps({"Username": "me", "Secret": PASSWORD}) in helper(caches)


# Settings


@pytest.mark.parametrize(
    ("upstream", "secrets", "path", "kind"),
    [
        ({"passwordCommand": ["a"]}, {}, ".passwordCommand", "found without username"),
        ({"username": "me", "credentials": "docker"}, {}, ".username", "found beside credentials"),
        ({"credentials": "podman"}, {}, ".credentials", "allowed: 'docker'"),
        ({"username": "me", "passwordCommand": []}, {}, ".passwordCommand", "allowed: command"),
        ({"username": "me", "passwordCommand": "a b"}, {}, ".passwordCommand", "a list"),
        (
            {"credentials": "docker", "remoteUrl": "http://a.test"},
            {},
            ".credentials",
            "in the clear",
        ),
        (
            {"username": "me", "passwordCommand": ["a"]},
            {"passwords": {"quay.io": PASSWORD}},
            None,
            "found beside passwordCommand",
        ),
    ],
)
def test_an_upstream_has_one_login(
    upstream: Mapping[str, Any], secrets: Mapping[str, Any], path: str | None, kind: str
) -> None:
    written = {**of({"upstreams": {"quay.io": upstream}}), **secrets}
    at = 'passwords["quay.io"]' if path is None else f'caches.upstreams["quay.io"]{path}'

    assert_refused(written, at, kind)
