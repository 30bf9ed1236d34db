"""cachectl when it is terminated or killed: the caches keep running, and nothing is left."""

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import pytest
import requests
from docker import DockerClient
from docker.models.containers import Container

from talos_registry_cache.engine import temporary_container, temporary_registry
from tests.integration.support import belongings, http_pull, warming
from tests.integration.support.cachectl import Cachectl
from tests.integration.support.polling import eventually, under_load
from tests.integration.support.stack import CacheStack, stack, upstreams
from tests.integration.support.upstream import IMAGE, Pushed, Upstream

REGISTRIES = ("docker.io", "quay.io")
PRUNE = ("prune", "--older-than", "720h", "--yes")
OK, INTERRUPTED = 0, 130
NOBODY = 65534
# Reading it takes a while.
LARGE = (40_000_000, 40_000_000)
BEGINS_WITHIN_S = 60
ENDS_WITHIN_S = 2.0
# More time if the engine has to restart a cache.
RESTARTS_WITHIN_S = 3.0
LABEL = "talos-registry-cache.temporary"

pytestmark = pytest.mark.timeout(400)


@dataclass(frozen=True, slots=True)
class Caches:
    """A stack that is up, an image in its caches, and cachectl of two users."""

    stack: CacheStack
    cachectl: Cachectl
    other: Cachectl
    engine: DockerClient
    image: Pushed
    containers: dict[str, Container]

    def states(self) -> set[str]:
        """The states of the caches."""
        for container in self.containers.values():
            container.reload()
        return {container.status for container in self.containers.values()}

    def thrown_away(self) -> list[dict[str, Any]]:
        """The temporary containers that use the caches' volumes."""
        api: Any = self.engine.api
        found: list[dict[str, Any]] = api.containers(all=True, filters={"label": LABEL})
        return [one for one in found if self.stack.name in one["Labels"][LABEL]]


@pytest.fixture(scope="module")
def caches(
    tmp_path_factory: pytest.TempPathFactory, engine: DockerClient, upstream: Upstream
) -> Iterator[Caches]:
    folder, other = tmp_path_factory.mktemp("ended"), tmp_path_factory.mktemp("other")
    with stack(folder, engine, {"upstreams": upstreams(upstream.url, *REGISTRIES)}) as made:
        made.up()
        image, _ = warming.push(upstream, LARGE)
        for cache in made.outputs()["caches"].values():
            http_pull.pull(str(cache["endpoint"]), image)
        theirs = Cachectl(made.name, other)
        theirs.env["HOME"] = str(other)
        yield Caches(
            made,
            Cachectl(made.name, folder),
            theirs,
            engine,
            image,
            belongings.registries(engine, made.name),
        )


@pytest.fixture(autouse=True)
def _as_before(caches: Caches) -> Iterator[None]:
    """Clean up after each test."""
    yield
    for one in caches.thrown_away():
        caches.engine.api.remove_container(one["Id"], force=True)
    for container in caches.containers.values():
        container.start()


def begun(caches: Caches) -> list[dict[str, Any]]:
    """Wait until a command works on a storage."""
    return eventually(
        caches.thrown_away, within_s=BEGINS_WITHIN_S, what="a temporary container is made"
    )


def stopped(caches: Caches) -> bool:
    """Wait until a cache is stopped."""
    return eventually(
        lambda: "exited" in caches.states(), within_s=BEGINS_WITHIN_S, what="a cache is stopped"
    )


def terminated(process: subprocess.Popen[str]) -> tuple[float, str]:
    """Terminate a process; returns how long it takes, and its messages."""
    started = time.monotonic()
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    return time.monotonic() - started, said


def assert_gone(
    caches: Caches,
    process: subprocess.Popen[str],
    ended: tuple[float, str],
    within_s: float = ENDS_WITHIN_S,
) -> None:
    """Assert that a process has ended in time, and left everything as it was."""
    took, said = ended
    assert process.returncode == INTERRUPTED, said
    assert "Traceback" not in said
    assert said.endswith("cachectl: interrupted\n")
    assert caches.thrown_away() == []
    assert caches.states() == {"running"}
    assert took < under_load(within_s), said


@pytest.mark.parametrize("after_s", [0.0, 0.1, 0.4])
@pytest.mark.parametrize("command", ["verify", "scrub"])
def test_sigterm_ends_a_command_that_uses_a_volume(
    caches: Caches, command: str, after_s: float
) -> None:
    process = caches.cachectl.start(command)
    begun(caches)
    time.sleep(after_s)

    assert_gone(caches, process, terminated(process))


def test_sigterm_ends_a_prune_and_its_cache_is_started_again(caches: Caches) -> None:
    process = caches.cachectl.start(*PRUNE)
    stopped(caches)

    assert_gone(caches, process, terminated(process), ENDS_WITHIN_S + RESTARTS_WITHIN_S)


@contextmanager
def held_up(container: Container) -> Iterator[None]:
    """Halt a cache, as on an overloaded machine; a restart resumes it."""
    container.reload()
    os.kill(container.attrs["State"]["Pid"], signal.SIGSTOP)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.kill(container.attrs["State"]["Pid"], signal.SIGCONT)


def starting(caches: Caches, event: str, *arguments: str) -> subprocess.Popen[str]:
    """Start a command, and wait until the engine does something with the first cache."""
    filters = {"container": caches.containers["docker.io"].name}
    client = docker.from_env(timeout=BEGINS_WITHIN_S)
    with closing(client), closing(client.events(filters=filters, decode=True)) as events:
        process = caches.cachectl.start(*arguments)
        assert any(one["Action"].startswith(event) for one in events)
    return process


@pytest.mark.parametrize(
    ("event", "command", "restarts_within_s"),
    [("kill", PRUNE, RESTARTS_WITHIN_S), ("exec_start: sh -c printf", ("status",), 0.0)],
)
def test_sigterm_ends_a_command_whose_cache_does_not_respond(
    caches: Caches, event: str, command: tuple[str, ...], restarts_within_s: float
) -> None:
    with held_up(caches.containers["docker.io"]):
        process = starting(caches, event, *command)
        ended = terminated(process)

    assert_gone(caches, process, ended, ENDS_WITHIN_S + restarts_within_s)


def test_sigterm_ends_logs_follow(caches: Caches) -> None:
    process = caches.cachectl.start("logs", "--follow")
    assert process.stdout is not None
    assert process.stdout.readline()

    assert_gone(caches, process, terminated(process))


def test_sigterm_ends_a_command_that_waits_for_another(caches: Caches) -> None:
    with held_up(caches.containers["docker.io"]):
        first = starting(caches, "kill", *PRUNE)
        second = caches.other.start("verify")
        assert second.stderr is not None
        assert "waiting for it" in second.stderr.readline()
        ended = terminated(second)
        assert terminated(first)

    assert_gone(caches, second, ended)


def test_sigterm_ends_a_command_that_ignores_ctrl_c(caches: Caches) -> None:
    """Like a background command of a script."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process = caches.cachectl.start("verify")
    finally:
        signal.signal(signal.SIGINT, before)
    begun(caches)

    assert_gone(caches, process, terminated(process))


# Killed


def killed(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate(timeout=10)


@pytest.mark.parametrize("by", ["command", "up"])
def test_the_next_command_or_up_starts_a_cache_that_a_killed_prune_left_stopped(
    caches: Caches, by: str
) -> None:
    process = caches.cachectl.start(*PRUNE)
    stopped(caches)
    killed(process)
    assert "exited" in caches.states()

    if by == "command":
        ended = caches.other(*PRUNE)
        assert ended.code == OK
        assert "started its cache, which was stopped" in ended.err
        assert caches.thrown_away() == []
    else:
        caches.stack.refresh()
        caches.stack.up()
        caches.containers.update(belongings.registries(caches.engine, caches.stack.name))
        assert caches.containers.keys() == set(REGISTRIES)

    assert caches.states() == {"running"}


@pytest.mark.parametrize("command", ["verify", "scrub"])
def test_the_next_command_of_another_user_removes_what_a_killed_one_left(
    caches: Caches, command: str
) -> None:
    process = caches.cachectl.start(command)
    begun(caches)
    killed(process)
    left = {one["Id"] for one in caches.thrown_away()}

    ended = caches.other("verify")

    assert left
    assert ended.code == OK
    assert caches.thrown_away() == []


# Beside each other


def test_a_temporary_registry_in_use_is_left_alone(caches: Caches) -> None:
    volume = caches.stack.outputs()["caches"]["docker.io"]["storage"]
    with temporary_registry.serving(caches.engine, volume, IMAGE) as url:
        ended = caches.other("verify")
        assert requests.get(f"{url}/v2/", timeout=10).ok

    assert ended.code == OK


@pytest.mark.parametrize("command", ["verify", "scrub"])
def test_two_commands_run_one_after_the_other(caches: Caches, command: str) -> None:
    for _ in range(3):
        assert_in_turn(caches.cachectl.start("verify"), caches.other.start(command))


def assert_in_turn(*both: subprocess.Popen[str]) -> None:
    """Assert that both commands succeed, one after the other."""
    ended = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [OK, OK], ended
    assert sum("waiting for it" in said for _, said in ended) == 1


@pytest.fixture
def nobody(caches: Caches) -> Iterator[Cachectl]:
    """Run cachectl as another user of this machine, who may use its engine."""
    socket = Path(os.environ["DOCKER_HOST"].removeprefix("unix://"))
    if os.geteuid() != 0 or not socket.is_socket():
        pytest.skip("only root can be another user, and only on an engine of this machine")
    # pytest's own folders are not open to others.
    with tempfile.TemporaryDirectory() as folder:
        os.chown(folder, NOBODY, NOBODY)
        theirs = Cachectl(caches.stack.name, Path(folder))
        theirs.env["HOME"] = folder
        theirs.user = {
            "user": NOBODY,
            "group": NOBODY,
            "extra_groups": [socket.stat().st_gid],
        }
        try:
            theirs.start("--version").communicate(timeout=60)
        except PermissionError:
            pytest.skip("another user cannot run this Python")
        yield theirs


def test_commands_of_two_users_of_this_machine_run_one_after_the_other(
    caches: Caches, nobody: Cachectl
) -> None:
    assert_in_turn(nobody.start("verify"), caches.cachectl.start("scrub"))


def test_containers_of_another_user_are_removed_once_unused(
    caches: Caches, nobody: Cachectl
) -> None:
    process = nobody.start("verify")
    begun(caches)
    process.send_signal(signal.SIGSTOP)
    used = {one["Id"] for one in caches.thrown_away()}

    temporary_container.remove_leftovers(caches.engine)
    assert used <= {one["Id"] for one in caches.thrown_away()}
    killed(process)
    temporary_container.remove_leftovers(caches.engine)
    assert used.isdisjoint(one["Id"] for one in caches.thrown_away())
