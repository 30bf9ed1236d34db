"""Scheduling of all tests over the workers of pytest-xdist."""

import pytest
from xdist.scheduler import LoadFileScheduling  # type: ignore[import-untyped]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """Give each worker whole files, because the tests of a file share expensive fixtures."""
    return LoadFileScheduling(config, log) if config.getoption("dist") == "load" else None
