"""Upstreams that ask who is there: the right password opens them, and it is seen nowhere."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import get_args

import pytest
from docker import DockerClient

from tests.integration.support import belongings, docker_cli, processes
from tests.integration.support.containerd import Containerd
from tests.integration.support.front import Front, Scheme, guarding
from tests.integration.support.processes import CommandFailedError
from tests.integration.support.stack import CacheStack, stack, upstreams
from tests.integration.support.upstream import Upstream

REGISTRY, OTHER = "registry.example", "docker.io"
USERNAME = "robot$ci"

# What would break a script or a JSON text that does not quote it, about a core that every way of
# quoting leaves as it is, so that a search finds it.
CORE = "fH7pXq2mVz9KtR4w"
PASSWORD = f"'\"$(id)`\\ {CORE}é\t%s"
WRONG = "wrong-Nc5bYd8JsL3g"

SCHEMES = [scheme for scheme in get_args(Scheme) if scheme != "none"]


@contextmanager
def _guarded(
    folder: Path, engine: DockerClient, upstream: Upstream, scheme: Scheme, password: str
) -> Iterator[tuple[Front, CacheStack]]:
    """A stack with one cache of an upstream that asks for a password, and one of another."""
    with guarding(upstream, scheme, USERNAME, PASSWORD) as front:
        registries = upstreams(front.url, REGISTRY) | upstreams(upstream.url, OTHER)
        registries[REGISTRY]["username"] = USERNAME
        # The authority is trusted by all caches of a stack that has another as its way.
        via = {"mirrors": {OTHER: upstream.url}, "ca": front.ca}
        settings = {"upstreams": registries, "via": via, "logs": {"level": "debug"}}
        with stack(folder, engine, settings) as made:
            made.set_password(REGISTRY, password)
            yield front, made


@pytest.fixture(params=SCHEMES)
def scheme(request: pytest.FixtureRequest) -> Scheme:
    parameter: Scheme = request.param
    return parameter


def test_right_password_opens_the_upstream(
    tmp_path: Path,
    engine: DockerClient,
    upstream: Upstream,
    containerd: Containerd,
    scheme: Scheme,
) -> None:
    image = upstream.push_index()
    with _guarded(tmp_path, engine, upstream, scheme, PASSWORD) as (front, made):
        made.up()
        mirrors = made.outputs()["mirrors"]
        assert containerd.pull(REGISTRY, image, mirrors) == image.digest
        assert front.served
        with upstream.away():
            assert containerd.pull(REGISTRY, image, mirrors) == image.digest


def test_wrong_password_opens_nothing_until_it_is_changed(
    tmp_path: Path, engine: DockerClient, upstream: Upstream, scheme: Scheme
) -> None:
    image = upstream.push_index()
    with _guarded(tmp_path, engine, upstream, scheme, WRONG) as (front, made):
        made.up()
        endpoint = made.outputs()["caches"][REGISTRY]["endpoint"]
        before = {found.name: found.id for found in belongings.containers(engine, made.name)}
        with pytest.raises(CommandFailedError):
            docker_cli.pull(endpoint, image)
        assert front.served == []

        made.set_password(REGISTRY, PASSWORD)
        made.up()

        assert docker_cli.pull(endpoint, image) == image.digest
        after = {found.name: found.id for found in belongings.containers(engine, made.name)}
        assert {name for name in before if before[name] != after[name]} == {
            f"{made.prefix}-{REGISTRY}-credentials"
        }, "no cache is replaced for a password"


def test_password_that_the_upstream_has_changed_is_followed(
    tmp_path: Path, engine: DockerClient, upstream: Upstream
) -> None:
    image, later = upstream.push_index(), upstream.push_index()
    with _guarded(tmp_path, engine, upstream, "basic", PASSWORD) as (front, made):
        made.up()
        endpoint = made.outputs()["caches"][REGISTRY]["endpoint"]
        docker_cli.pull(endpoint, image)
        front.password = "another one"  # noqa: S105
        with pytest.raises(CommandFailedError):
            docker_cli.pull(endpoint, later)
        assert docker_cli.pull(endpoint, image) == image.digest, "what it holds is still served"
        made.set_password(REGISTRY, front.password)
        made.up()
        assert docker_cli.pull(endpoint, later) == later.digest


@pytest.fixture(scope="module")
def used(
    tmp_path_factory: pytest.TempPathFactory, engine: DockerClient, upstream: Upstream
) -> Iterator[CacheStack]:
    """A stack whose password was used, after a wrong one was replaced by it."""
    folder = tmp_path_factory.mktemp("used")
    with _guarded(folder, engine, upstream, "bearer", WRONG) as (_, made):
        made.up()
        endpoint = made.outputs()["caches"][REGISTRY]["endpoint"]
        image = upstream.push_index()
        with pytest.raises(CommandFailedError):
            docker_cli.pull(endpoint, image)
        made.set_password(REGISTRY, PASSWORD)
        made.up()
        docker_cli.pull(endpoint, image)
        made.refresh()
        yield made


def test_password_is_in_no_exported_state(used: CacheStack) -> None:
    assert "ciphertext" in used.export()
    _assert_hidden(used.export())


def test_password_is_in_no_file_of_project_and_state(used: CacheStack) -> None:
    files = [path for path in used.folder.rglob("*") if path.is_file()]
    assert any(used.state_folder in path.parents for path in files)
    for path in files:
        _assert_hidden(path.read_bytes().decode(errors="replace"))


def test_password_is_in_no_inspection(used: CacheStack, engine: DockerClient) -> None:
    shown = [made.attrs for made in belongings.containers(engine, used.name)]
    assert {name for found in shown for name in [found["Name"].removeprefix("/")]} == set(
        used.belongings().containers
    )
    shown += [engine.api.inspect_network(name) for name in used.belongings().networks]
    shown += [engine.api.inspect_volume(name) for name in used.belongings().volumes]
    _assert_hidden(json.dumps(shown))


def test_password_is_in_no_log(used: CacheStack, engine: DockerClient) -> None:
    logs = {name: cache.logs() for name, cache in belongings.caches(engine, used.name).items()}
    assert b"Challenge established" in logs[REGISTRY], "the log is of a cache that was used"
    for log in logs.values():
        _assert_hidden(log.decode())


def test_password_is_in_no_command_line_and_environment(
    used: CacheStack, engine: DockerClient
) -> None:
    for cache in belongings.caches(engine, used.name).values():
        (processes_of_it,) = [cache.top(ps_args="-eo pid,args")["Processes"] or []]
        assert processes_of_it
        for pid, *command in processes_of_it:
            environment = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")
            _assert_hidden(" ".join(command) + environment)
    _assert_hidden(processes.run("ps", "-eo", "args"))


def test_password_is_in_no_output_of_pulumi(used: CacheStack) -> None:
    shown = [used.pulumi("stack", "output", "--json", "--show-secrets"), used.pulumi("config")]
    used.set_password(REGISTRY, WRONG)
    shown += [used.pulumi("preview", "--diff"), used.pulumi("preview", "--json")]
    assert f"{REGISTRY}-credentials-writer" in shown[-1], (
        "a preview of a change shows more than one of none"
    )
    for text in shown:
        _assert_hidden(text)


def _assert_hidden(text: str) -> None:
    for secret in (CORE, WRONG):
        # Not `assert secret not in text`: pytest would print all of the text.
        at = text.find(secret)
        assert at < 0, f"in plain at {at}: …{text[max(0, at - 200) : at]}[here]"
