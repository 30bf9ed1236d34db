import os
import traceback
from pathlib import Path
from typing import Any

import pytest
from docker.errors import DockerException
from pulumi.dynamic import Config, ConfigureRequest

from components import dynamic_provider
from components.dynamic_provider import EngineError
from talos_registry_cache.errors import ReportedError
from tests.unit import docker_contexts
from tests.unit.conftest import NO_ENGINE

OTHER = "tcp://192.0.2.1:2375"


class MistakeError(ReportedError):
    """An error that the user can fix."""


class DetailedMistakeError(MistakeError):
    """A subclass of it."""


@pytest.fixture(autouse=True)
def _unchanged_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Undo what a provider changes in its process."""
    monkeypatch.setattr(traceback, "format_exc", traceback.format_exc)


def request(**config: str) -> ConfigureRequest:
    """A provider's configuration; `docker__host` is `docker:host`."""
    keys = {key.replace("__", ":"): value for key, value in config.items()}
    return ConfigureRequest(Config(keys, "talos-registry-cache"))


def shown(error: Exception, **options: Any) -> str:
    """What Pulumi shows for an error of a provider (pulumi/dynamic/__main__.py)."""
    try:
        raise error  # noqa: TRY301 - to be handled
    except Exception:  # noqa: BLE001 - as there
        return traceback.format_exc(**options)


@pytest.mark.parametrize("error", [MistakeError, DetailedMistakeError, EngineError])
def test_errors_that_the_user_can_fix_are_shown_without_a_traceback(error: type[Exception]) -> None:
    dynamic_provider.prepare(request())

    assert shown(error("there is no such image")) == "there is no such image"


def test_other_errors_keep_their_traceback() -> None:
    dynamic_provider.prepare(request())

    error = ZeroDivisionError("nothing to divide by")
    error.__cause__ = ValueError("first")
    assert shown(error).startswith("ValueError: first\n")
    assert shown(error).endswith("ZeroDivisionError: nothing to divide by\n")
    assert "ValueError" not in shown(error, chain=False)
    assert "File" not in shown(error, limit=0)


def test_the_engine_of_the_docker_provider_wins_over_the_environment() -> None:
    dynamic_provider.prepare(request())
    assert os.environ["DOCKER_HOST"] == NO_ENGINE

    dynamic_provider.prepare(request(docker__host="tcp://192.0.2.1:2375"))
    assert os.environ["DOCKER_HOST"] == "tcp://192.0.2.1:2375"


@pytest.mark.parametrize(
    ("variables", "advice"),
    [
        # As `docker context use` selects it.
        ({}, f"the Docker context mine: run `make up`, or `export DOCKER_HOST={OTHER}`$"),
        ({"DOCKER_CONTEXT": "mine"}, f"`export DOCKER_HOST={OTHER} DOCKER_CONTEXT=`$"),
        (
            {"DOCKER_HOST": OTHER, "DOCKER_CONTEXT": "mine"},
            f"DOCKER_HOST={OTHER} DOCKER_CONTEXT=`$",
        ),
    ],
)
def test_docker_contexts_that_the_docker_provider_cannot_use_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variables: dict[str, str], advice: str
) -> None:
    docker_contexts.add(tmp_path, "mine", {"Host": OTHER})
    docker_contexts.use(tmp_path, "mine")
    monkeypatch.delenv("DOCKER_HOST")
    for name, value in {"DOCKER_CONFIG": str(tmp_path), **variables}.items():
        monkeypatch.setenv(name, value)

    with pytest.raises(EngineError, match=advice):
        dynamic_provider.connect()


def test_an_engine_that_does_not_answer_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    with (
        pytest.raises(EngineError, match="the container engine does not answer") as raised,
        dynamic_provider.engine(),
    ):
        pytest.fail("there is no engine")

    assert isinstance(raised.value.__cause__, DockerException)
