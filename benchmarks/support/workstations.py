"""Workstations, each with a cache of its own, as containers of this machine's engine.

They are one stack of the program: to it, twenty workstations are twenty upstreams, and each gets
the container, the settings and the files that it would have as the only one of its machine.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from docker import DockerClient

from tests.integration.support import stack, team
from tests.integration.support.team import READER, Team


@contextmanager
def on_their_own(
    folder: Path, engine: DockerClient, upstream: str, count: int
) -> Iterator[Sequence[str]]:
    """Run workstations whose caches ask the upstream themselves; the URL of each cache.

    Args:
        folder: where the stack keeps its files.
        engine: this machine's engine.
        upstream: URL of the upstream.
        count: how many there are.
    """
    with stack.stack(folder, engine, _settings(upstream, count)) as made:
        made.up()
        yield list(made.outputs()["mirrors"].values())


@contextmanager
def of_team(
    folder: Path, engine: DockerClient, up: Team, nodes: int, count: int
) -> Iterator[Sequence[str]]:
    """Run workstations whose caches ask those of a team; the URL of each workstation's cache.

    Args:
        folder: where the stack keeps its files.
        engine: this machine's engine.
        up: the team's stack.
        nodes: how many of its nodes they are spread over.
        count: how many there are.
    """
    settings = _settings(up.bed.upstream.url, count)
    hosts = up.bed.hosts[:nodes]
    via = {
        "mirrors": {
            name: team.endpoint(hosts[number % nodes])
            for number, name in enumerate(settings["upstreams"])
        },
        "ca": up.stack.outputs()["ca"],
        "username": READER,
    }
    with stack.stack(folder, engine, {**settings, "via": via}) as made:
        made.set_secret("passwords.via", up.password)
        made.up()
        yield list(made.outputs()["mirrors"].values())


def _settings(upstream: str, count: int) -> dict[str, stack.Settings]:
    names = [f"workstation-{number:02}.example" for number in range(1, count + 1)]
    return {
        "upstreams": stack.upstreams(upstream, *names),
        "storage": {"onDestroy": "delete"},
    }
