"""Settings of all unit tests: no container engine, and the same examples in every run."""

import hypothesis
import pytest

NO_ENGINE = "unix:///no/engine/for/unit/tests.sock"

hypothesis.settings.register_profile("unit", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("unit")


@pytest.fixture(autouse=True)
def no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide this machine's engine from tests that forget to fake it."""
    monkeypatch.setenv("DOCKER_HOST", NO_ENGINE)
