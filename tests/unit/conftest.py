"""What holds for all unit tests: they reach no engine, and they are the same at every run."""

import hypothesis
import pytest

NO_ENGINE = "unix:///no/engine/for/unit/tests.sock"

hypothesis.settings.register_profile("unit", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("unit")


@pytest.fixture(autouse=True)
def no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever forgets to fake the engine finds none, and not the one of this machine."""
    monkeypatch.setenv("DOCKER_HOST", NO_ENGINE)
