import os
import traceback

import pytest
from docker.errors import DockerException
from pulumi.dynamic import Config, ConfigureRequest

from components import dynamic_provider
from components.dynamic_provider import EngineError
from tests.unit.conftest import NO_ENGINE


class MistakeError(Exception):
    """An error that a person can put right."""


class DetailedMistakeError(MistakeError):
    """A kind of it."""


@pytest.fixture(autouse=True)
def _a_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a provider changes in its process is as before after each test."""
    monkeypatch.setattr(traceback, "format_exc", traceback.format_exc)
    monkeypatch.setattr(dynamic_provider, "_plain", set())


def request(**config: str) -> ConfigureRequest:
    """What Pulumi configures a provider with; `docker__host` is `docker:host`."""
    keys = {key.replace("__", ":"): value for key, value in config.items()}
    return ConfigureRequest(Config(keys, "talos-registry-cache"))


def shown(error: Exception) -> str:
    """What Pulumi shows of an error that a provider raises (pulumi/dynamic/__main__.py)."""
    try:
        raise error  # noqa: TRY301 - to be handled
    except Exception:  # noqa: BLE001 - as there
        return traceback.format_exc()


@pytest.mark.parametrize("error", [MistakeError, DetailedMistakeError, EngineError])
def test_what_a_person_can_put_right_is_shown_as_its_message(error: type[Exception]) -> None:
    dynamic_provider.prepare(request(), MistakeError)

    assert shown(error("there is no such image")) == "there is no such image"


def test_any_other_error_is_shown_with_its_traceback() -> None:
    dynamic_provider.prepare(request(), MistakeError)

    text = shown(ZeroDivisionError("nothing to divide by"))

    assert text.startswith("Traceback (most recent call last):")
    assert text.endswith("ZeroDivisionError: nothing to divide by\n")


def test_providers_of_one_process_keep_each_others_plain_errors() -> None:
    dynamic_provider.prepare(request(), MistakeError)
    dynamic_provider.prepare(request(), KeyError)

    assert shown(MistakeError("mine")) == "mine"
    assert shown(KeyError("its")) == "'its'"


def test_the_engine_is_that_of_the_docker_provider() -> None:
    dynamic_provider.prepare(request(docker__host="tcp://192.0.2.1:2375"))

    assert os.environ["DOCKER_HOST"] == "tcp://192.0.2.1:2375"


def test_the_engine_of_the_environment_stays_where_none_is_configured() -> None:
    dynamic_provider.prepare(request())

    assert os.environ["DOCKER_HOST"] == NO_ENGINE


def test_an_engine_that_does_not_answer_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    with (
        pytest.raises(EngineError, match="the container engine does not answer") as raised,
        dynamic_provider.engine(),
    ):
        pytest.fail("there is no engine")

    assert isinstance(raised.value.__cause__, DockerException)
