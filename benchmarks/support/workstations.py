"""Workstations with a cache each, as containers of this machine's engine.

They are a single stack with one upstream per workstation: each cache has the container, settings
and files that it would have on a machine of its own.
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
    """Run workstations whose caches pull from the upstream; yields the URL of each cache.

    Args:
        folder: folder for the stack's files.
        engine: this machine's engine.
        upstream: URL of the upstream.
        count: number of workstations.
    """
    with stack.stack(folder, engine, _settings(upstream, count)) as made:
        made.up()
        yield list(made.outputs()["mirrors"].values())


@contextmanager
def of_team(
    folder: Path, engine: DockerClient, up: Team, nodes: int, count: int
) -> Iterator[Sequence[str]]:
    """Run workstations whose caches pull from a team's; yields the URL of each workstation's cache.

    Args:
        folder: folder for the stack's files.
        engine: this machine's engine.
        up: the team's stack.
        nodes: number of the team's nodes that they are spread over.
        count: number of workstations.
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
        # The images of the next morning have the same tags.
        "front": {"tagFreshness": "0s"},
    }
