"""Upstreams that require a password: the right one gives access, and nothing shows it."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import pytest
from docker import DockerClient

from tests.integration.support import belongings, docker_cli, processes
from tests.integration.support.containerd import Containerd
from tests.integration.support.gate import Gate, Scheme, guarding
from tests.integration.support.processes import CommandFailedError
from tests.integration.support.stack import CacheStack, stack, upstreams
from tests.integration.support.upstream import Upstream

REGISTRY, OTHER = "registry.example", "docker.io"
USERNAME = "robot$ci"

# Characters that break a script or JSON without quoting, around a core that no quoting changes, so
# that a search finds it.
CORE = "fH7pXq2mVz9KtR4w"
PASSWORD = f"'\"$(id)`\\ {CORE}é\t%s"
WRONG = "wrong-Nc5bYd8JsL3g"
CHANGED = "changed-Xk3vQw7TzB2m"

SCHEMES = [scheme for scheme in get_args(Scheme) if scheme != "none"]


@dataclass(frozen=True, slots=True)
class Guarded:
    """A stack with a cache of an upstream that requires a password, and the upstream's gate."""

    stack: CacheStack
    gate: Gate


@pytest.fixture(scope="module", params=SCHEMES)
def guarded(
    tmp_path_factory: pytest.TempPathFactory,
    engine: DockerClient,
    upstream: Upstream,
    request: pytest.FixtureRequest,
) -> Iterator[Guarded]:
    """It has the wrong password at first."""
    with guarding(upstream, request.param, USERNAME, PASSWORD) as gate:
        registries = upstreams(gate.url, REGISTRY) | upstreams(upstream.url, OTHER)
        registries[REGISTRY] |= {"username": USERNAME, "ca": gate.ca}
        settings = {"upstreams": registries, "logs": {"level": "debug"}}
        with stack(tmp_path_factory.mktemp("guarded"), engine, settings) as made:
            made.set_password(REGISTRY, WRONG)
            made.up()
            yield Guarded(made, gate)


def test_only_the_right_password_gives_access_and_a_change_replaces_no_cache(
    guarded: Guarded, upstream: Upstream, containerd: Containerd
) -> None:
    made, gate = guarded.stack, guarded.gate
    image, before = upstream.push_index(), made.ids()
    with pytest.raises(CommandFailedError):
        docker_cli.pull(made.endpoint(REGISTRY), image)
    assert gate.served == []

    made.set_password(REGISTRY, PASSWORD)
    made.up()

    mirrors = made.outputs()["mirrors"]
    assert containerd.pull(REGISTRY, image, mirrors) == image.digest
    assert gate.served
    assert made.replaced(before) == {f"{made.prefix}-{REGISTRY}-credentials"}
    with upstream.away():
        assert docker_cli.pull(made.endpoint(REGISTRY), image) == image.digest


def test_a_password_that_the_upstream_changes_can_be_changed_here(
    guarded: Guarded, upstream: Upstream
) -> None:
    made, gate = guarded.stack, guarded.gate
    if gate.scheme == "bearer":
        pytest.skip("an upstream with tokens accepts the old password until they expire")
    cached, later = upstream.push_index(), upstream.push_index()
    docker_cli.pull(made.endpoint(REGISTRY), cached)
    gate.password = CHANGED
    with pytest.raises(CommandFailedError):
        docker_cli.pull(made.endpoint(REGISTRY), later)
    assert docker_cli.pull(made.endpoint(REGISTRY), cached) == cached.digest

    made.set_password(REGISTRY, CHANGED)
    made.up()

    assert docker_cli.pull(made.endpoint(REGISTRY), later) == later.digest


def test_state_project_and_output_of_pulumi_show_no_password(guarded: Guarded) -> None:
    made = guarded.stack
    made.refresh()
    assert "ciphertext" in made.export()
    shown = [
        made.export(),
        made.pulumi("stack", "output", "--json", "--show-secrets"),
        made.pulumi("config"),
    ]
    made.set_password(REGISTRY, WRONG)
    shown += [made.pulumi("preview", "--diff"), made.pulumi("preview", "--json")]
    assert f"{REGISTRY}-credentials-writer" in shown[-1], "the preview shows a change"
    files = [path for path in made.folder.rglob("*") if path.is_file()]
    assert any(made.state_folder in path.parents for path in files)
    shown += [path.read_bytes().decode(errors="replace") for path in files]
    for text in shown:
        _assert_hidden(text)


def test_inspections_logs_processes_and_environments_show_no_password(
    guarded: Guarded, engine: DockerClient
) -> None:
    made = guarded.stack
    found, owned = belongings.containers(engine, made.name), made.belongings()
    assert {container.name for container in found} == owned.containers
    shown = [
        json.dumps([container.attrs for container in found]),
        *(json.dumps(engine.api.inspect_network(name)) for name in owned.networks),
        *(json.dumps(engine.api.inspect_volume(name)) for name in owned.volumes),
        processes.run("ps", "-eo", "args"),
    ]
    used = belongings.registries(engine, made.name)[REGISTRY]
    assert b"Challenge established" in used.logs(), "the cache was used"
    for one in found:
        log = one.logs().decode() if one.status == "running" else ""
        running = one.top(ps_args="-eo pid,args")["Processes"] if one.status == "running" else []
        for pid, *command in running:
            shown += [*command, Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")]
        shown.append(log)
    for text in shown:
        _assert_hidden(text)


def _assert_hidden(text: str) -> None:
    for secret in (CORE, WRONG, CHANGED):
        # Not `assert secret not in text`: pytest would print all of the text.
        at = text.find(secret)
        assert at < 0, f"in plain at {at}: …{text[max(0, at - 200) : at]}[here]"
