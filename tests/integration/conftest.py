"""Fixtures of the integration tests: an engine, an upstream, a containerd, and stacks."""

import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import docker
import pytest
from docker import DockerClient

from tests.integration.support import containerd as containerd_process
from tests.integration.support import team, team_bed
from tests.integration.support import upstream as upstream_registry
from tests.integration.support import warming as warming_support
from tests.integration.support.containerd import Containerd
from tests.integration.support.stack import CacheStack, Settings, stack
from tests.integration.support.team import Team
from tests.integration.support.team_bed import Bed
from tests.integration.support.upstream import Upstream
from tests.integration.support.warming import Warming

HERE = Path(__file__).resolve().parent
# Ends hanging tests, even on a busy machine.
TIMEOUT_S = 1200
TOOLS = ("pulumi", "docker", "ctr", "containerd", "ip")

NewStack = Callable[[Settings], CacheStack]


def pytest_configure(config: pytest.Config) -> None:
    """Ignore the directory listing that pytest itself leaves open at exit."""
    config.addinivalue_line("filterwarnings", "ignore:unclosed scandir iterator:ResourceWarning")
    warnings.filterwarnings("ignore", "unclosed scandir iterator", ResourceWarning)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give every test a timeout, because tests wait for other processes."""
    for item in items:
        if HERE in item.path.parents and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(TIMEOUT_S))


@pytest.fixture(scope="session")
def engine() -> Iterator[DockerClient]:
    """The container engine of this machine."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    assert not missing, f"not on PATH: {missing}; run the tests with `make test`"
    assert "DOCKER_HOST" in os.environ, "run the tests with `make test`"
    client = docker.from_env(timeout=300)
    try:
        yield client
    finally:
        client.close()


@pytest.fixture(scope="session")
def upstream(engine: DockerClient) -> Iterator[Upstream]:
    """An upstream registry for each worker."""
    with upstream_registry.running(engine) as running:
        yield running


@pytest.fixture(scope="session")
def containerd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Containerd]:
    """A containerd for each worker."""
    with containerd_process.running(tmp_path_factory.mktemp("containerd")) as running:
        yield running


@pytest.fixture
def new_stack(tmp_path: Path, engine: DockerClient) -> Iterator[NewStack]:
    """A function that creates stacks; they are removed after the test."""
    with ExitStack() as made:
        yield lambda caches: made.enter_context(stack(tmp_path, engine, caches))


@pytest.fixture(scope="session")
def beds_are_possible() -> None:
    """Skip if no test bed can run here."""
    if reason := team_bed.why_impossible():
        pytest.skip(reason)


@pytest.fixture(scope="module")
def bed(beds_are_possible: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:  # noqa: ARG001 - it skips
    """Two hosts in a Swarm, an object store and an upstream, for each test file."""
    with team_bed.running(tmp_path_factory.mktemp("bed")) as running:
        yield running


@pytest.fixture(scope="module")
def ours(bed: Bed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    """A team's stack that is up on the test bed, for each test file."""
    with team.running(tmp_path_factory.mktemp("team"), bed) as made:
        yield made


@pytest.fixture(scope="module")
def warming_stack(
    tmp_path_factory: pytest.TempPathFactory, engine: DockerClient, upstream: Upstream
) -> Iterator[Warming]:
    """A stack for warming with injected faults, for each test file."""
    with warming_support.running(tmp_path_factory.mktemp("warming"), engine, upstream) as made:
        yield made


@pytest.fixture
def warming(warming_stack: Warming) -> Iterator[Warming]:
    """That stack; all faults are removed after each test."""
    yield warming_stack
    warming_stack.gate.recover()
