"""Settings that are wrong are refused before anything is touched."""

import json
from typing import Any

import pytest
from pulumi.automation import CommandError

from tests.integration.conftest import NewStack
from tests.integration.support import belongings, host

WRONG: dict[str, Any] = {
    "ttl": "30d",
    "mirrorHost": "not an address",
    "memorylimit": "64m",
    "upstreams": {
        "docker.io": {"port": 5000, "remoteUrl": "https://me:hunter2secret@registry-1.docker.io"},
        "quay.io": {"port": 5000},
        "ghcr.io": {"port": 70000},
        "unknown.example": {"port": 5005},
        "gcr.io": {"port": 5003, "remoteUrl": "https://gcr.io/v2/"},
    },
}
PATHS = (
    "caches.ttl",
    "caches.mirrorHost",
    "caches.memorylimit",
    'caches.upstreams["docker.io"].remoteUrl',
    'caches.upstreams["quay.io"].port',
    'caches.upstreams["ghcr.io"].port',
    'caches.upstreams["unknown.example"].remoteUrl',
    'caches.upstreams["gcr.io"].remoteUrl',
)


@pytest.mark.parametrize("command", ["preview", "up"])
def test_all_mistakes_are_listed_and_nothing_is_made(new_stack: NewStack, command: str) -> None:
    stack = new_stack(WRONG)
    with pytest.raises(CommandError) as failure:
        getattr(stack, command)()
    shown = str(failure.value)
    missing = [path for path in PATHS if path not in shown]
    assert not missing, shown
    assert "Traceback" not in shown
    assert "hunter2secret" not in shown
    assert stack.belongings() == belongings.NOTHING
    resources = json.loads(stack.export())["deployment"].get("resources") or []
    assert [made["type"] for made in resources if made["type"] != "pulumi:pulumi:Stack"] == []


def test_no_upstream_at_all_is_refused(new_stack: NewStack) -> None:
    with pytest.raises(CommandError, match=r"caches\.upstreams: found none; allowed:"):
        new_stack({"upstreams": {}}).preview()


def test_user_name_without_a_password_is_refused_with_the_command_to_set_it(
    new_stack: NewStack,
) -> None:
    upstream = {"port": host.free_port(), "username": "robot"}
    with pytest.raises(CommandError) as failure:
        new_stack({"upstreams": {"docker.io": upstream}}).preview()
    assert """pulumi config set --secret --path 'passwords["docker.io"]'""" in str(failure.value)


def test_wrong_settings_leave_what_is_running_as_it_is(new_stack: NewStack) -> None:
    stack = new_stack({"upstreams": {"docker.io": {"port": host.free_port()}}})
    stack.up()
    before = stack.belongings()
    stack.configure(WRONG)
    with pytest.raises(CommandError):
        stack.up()
    assert stack.belongings() == before
