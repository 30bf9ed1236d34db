"""The engine is the one that the docker CLI would use."""

import os
from pathlib import Path

import pytest

from talos_registry_cache.engine import selection
from talos_registry_cache.engine.selection import DEFAULT_HOST, SelectionError
from tests.unit import docker_contexts

COLIMA = "unix:///home/me/.colima/docker.sock"
OTHER = "tcp://192.0.2.1:2375"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The directory of the docker CLI's configuration, with the contexts colima and other."""
    docker_contexts.add(tmp_path, "colima", {"Host": COLIMA})
    docker_contexts.add(tmp_path, "other", {"Host": OTHER})
    return tmp_path


@pytest.mark.parametrize(
    ("environment", "host"),
    [
        (
            {"DOCKER_HOST": "tcp://192.0.2.9:2375", "DOCKER_CONTEXT": "other"},
            "tcp://192.0.2.9:2375",
        ),
        ({"DOCKER_CONTEXT": "other"}, OTHER),
        ({"DOCKER_CONTEXT": "default"}, DEFAULT_HOST),
        ({"DOCKER_HOST": "", "DOCKER_CONTEXT": ""}, COLIMA),
    ],
)
def test_docker_host_then_docker_context_then_the_current_context_select_the_engine(
    folder: Path, environment: dict[str, str], host: str
) -> None:
    docker_contexts.use(folder, "colima")

    assert selection.select({"DOCKER_CONFIG": str(folder), **environment}).host == host


@pytest.mark.parametrize("configuration", [None, "{}", '{"currentContext": ""}', "[]", "{broken"])
def test_the_default_socket_is_used_without_a_current_context(
    folder: Path, configuration: str | None
) -> None:
    if configuration is not None:
        (folder / "config.json").write_text(configuration)

    assert selection.select({"DOCKER_CONFIG": str(folder)}).host == DEFAULT_HOST


def test_contexts_are_in_the_home_directory_by_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    docker_contexts.add(tmp_path / ".docker", "colima", {"Host": COLIMA})
    docker_contexts.use(tmp_path / ".docker", "colima")
    monkeypatch.setenv("HOME", str(tmp_path))

    assert selection.select({}).host == COLIMA


@pytest.mark.parametrize(
    ("content", "problem"),
    [(None, "does not exist"), ("{broken", "cannot be read"), ('{"Endpoints": {}}', "cannot be")],
)
def test_a_context_that_cannot_be_used_is_an_error_and_not_the_default(
    folder: Path, content: str | None, problem: str
) -> None:
    if content is not None:
        docker_contexts.add(folder, "mine", {}).write_text(content)

    with pytest.raises(SelectionError, match=f"context mine, which DOCKER_CONTEXT.*{problem}"):
        selection.select({"DOCKER_CONFIG": str(folder), "DOCKER_CONTEXT": "mine"})


@pytest.mark.parametrize(("skips", "verify"), [(False, "1"), (True, "")])
def test_the_tls_files_of_a_context_are_used(folder: Path, skips: bool, verify: str) -> None:  # noqa: FBT001
    docker_contexts.add(folder, "tls", {"Host": "tcp://192.0.2.1:2376", "SkipTLSVerify": skips})
    certificates = folder / "contexts" / "tls" / docker_contexts.ident("tls") / "docker"
    certificates.mkdir(parents=True)
    docker_contexts.use(folder, "tls")

    assert selection.select({"DOCKER_CONFIG": str(folder)}).variables() == {
        "DOCKER_HOST": "tcp://192.0.2.1:2376",
        "DOCKER_CONTEXT": "",
        "DOCKER_CERT_PATH": str(certificates),
        "DOCKER_TLS_VERIFY": verify,
    }


@pytest.mark.parametrize(
    ("variables", "certificates"),
    [
        ({"DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": "/certs"}, "/certs"),
        ({"DOCKER_TLS_VERIFY": "1"}, "/config"),
        ({"DOCKER_TLS": "1", "DOCKER_CERT_PATH": "/certs"}, "/certs"),
        # The docker CLI does not use TLS either.
        ({"DOCKER_CERT_PATH": "/certs"}, ""),
    ],
)
def test_the_tls_files_of_docker_host_are_those_of_the_docker_cli(
    variables: dict[str, str], certificates: str
) -> None:
    environment = {"DOCKER_CONFIG": "/config", "DOCKER_HOST": OTHER, **variables}

    assert selection.select(environment).certificates == certificates


def test_all_docker_clients_of_a_process_use_an_exported_engine(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DOCKER_HOST", "DOCKER_CERT_PATH", "DOCKER_TLS_VERIFY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(folder))
    monkeypatch.setenv("DOCKER_CONTEXT", "colima")

    selection.select().export()

    assert os.environ["DOCKER_HOST"] == COLIMA
    # Pulumi's Docker provider would prefer it.
    assert "DOCKER_CONTEXT" not in os.environ
