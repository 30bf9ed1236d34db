"""Wrong settings are refused before anything is changed."""

import json
from typing import Any

import pytest
from docker import DockerClient
from pulumi.automation import CommandError

from tests.integration.conftest import NewStack
from tests.integration.support import belongings, host
from tests.integration.support.stack import CacheStack

WRONG: dict[str, Any] = {
    "retention": {"unusedFor": "9999999999999h"},
    "memorylimit": "64m",
    "publishOn": ["0.0.0.0", "127.0.0.1"],
    "upstreams": {
        "docker.io": {"port": 5000, "remoteUrl": "https://me:hunter2secret@registry-1.docker.io"},
        "ghcr.io": {"port": 70000, "username": "robot"},
    },
}
FOUND = (
    "caches.retention.unusedFor: found ",
    "caches.memorylimit: found an unknown key",
    "caches.publishOn[0]: found ",
    'caches.upstreams["docker.io"].remoteUrl: found ',
    'caches.upstreams["ghcr.io"].port: found ',
    """pulumi config set --secret --path 'passwords["ghcr.io"]'""",
    "images.references[0]: found",
    "clusters.demo.talosctl: found",
    "cachess: found an unknown key (did you mean caches?)",
)


def _configure_wrongly(stack: CacheStack) -> None:
    stack.configure(WRONG)
    stack.configure({"references": ["docker.io/a b"]}, key="images")
    stack.configure({"demo": {"talosctl": "n" * 5000}}, key="clusters")
    stack.configure({"upstreams": {}}, key="cachess")


@pytest.mark.parametrize("command", ["preview", "up"])
def test_all_mistakes_are_listed_and_nothing_is_created(new_stack: NewStack, command: str) -> None:
    stack = new_stack(WRONG)
    _configure_wrongly(stack)

    with pytest.raises(CommandError) as failure:
        getattr(stack, command)()

    shown = str(failure.value)
    missing = [mistake for mistake in FOUND if mistake not in shown]
    assert not missing, shown
    assert "Traceback" not in shown
    assert "hunter2secret" not in shown
    assert stack.belongings() == belongings.NOTHING
    resources = json.loads(stack.export())["deployment"].get("resources") or []
    assert [made["type"] for made in resources if made["type"] != "pulumi:pulumi:Stack"] == []


def test_caches_that_would_pull_from_themselves_are_refused(
    new_stack: NewStack, engine: DockerClient
) -> None:
    port = host.free_port()
    gateway = host.bridge_gateway(engine)
    via = {"mirrors": {"docker.io": f"http://{gateway}:{port}"}}
    with pytest.raises(CommandError, match=r"which is this stack's own cache of docker\.io"):
        new_stack({"upstreams": {"docker.io": {"port": port}}, "via": via}).preview()


def test_wrong_settings_leave_running_caches_alone(new_stack: NewStack) -> None:
    stack = new_stack({"upstreams": {"docker.io": {"port": host.free_port()}}})
    stack.up()
    before, ids = stack.belongings(), stack.ids()
    _configure_wrongly(stack)
    with pytest.raises(CommandError):
        stack.up()
    assert (stack.belongings(), stack.ids()) == (before, ids)
