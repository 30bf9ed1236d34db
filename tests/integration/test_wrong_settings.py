"""Settings that are wrong are refused before anything is touched."""

import json
from typing import Any

import pytest
from docker import DockerClient
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


# Each was accepted once: `up` failed with some resources made, or was green and did what nobody
# wanted.
ACCEPTED_ONCE: dict[str, dict[str, Any]] = {
    "caches.publishOn[0]": {"publishOn": ["0.0.0.0", "127.0.0.1"]},
    "caches.ttl": {"ttl": "9999999999999h"},
    "caches.memoryLimit": {"memoryLimit": "1k"},
    "caches.logs.maxSize": {"logs": {"maxSize": f"{'9' * 30}g"}},
    "caches.tls.names[0]": {"tls": {"names": ["300.1.1.1"]}},
    "caches.via.ca": {
        "via": {"mirrors": {"docker.io": "https://a.test"}, "ca": "-----BEGIN CERTIFICATE-----\n"}
    },
}


def test_what_was_accepted_once_is_refused_in_a_preview(new_stack: NewStack) -> None:
    port = host.free_port()
    wrong: dict[str, Any] = {"upstreams": {"docker.io": {"port": port}}}
    for settings in ACCEPTED_ONCE.values():
        wrong |= settings
    with pytest.raises(CommandError) as failure:
        new_stack(wrong).preview()
    shown = str(failure.value)
    missing = [path for path in ACCEPTED_ONCE if f"{path}: found " not in shown]
    assert not missing, shown
    assert "Traceback" not in shown


def test_caches_that_would_ask_themselves_are_refused_in_a_preview(
    new_stack: NewStack, engine: DockerClient
) -> None:
    port = host.free_port()
    gateway = host.bridge_gateway(engine)
    via = {"mirrors": {"docker.io": f"http://{gateway}:{port}"}}
    with pytest.raises(CommandError, match=r"which is this stack's own cache of docker\.io"):
        new_stack({"upstreams": {"docker.io": {"port": port}}, "via": via}).preview()


@pytest.mark.parametrize("file", ["/dev/zero", "a\0b", "n" * 300])
def test_a_file_of_images_that_is_none_or_has_no_end_is_refused_without_a_traceback(
    new_stack: NewStack, file: str
) -> None:
    stack = new_stack({"upstreams": {"docker.io": {"port": host.free_port()}}})
    stack.configure({"file": file}, key="images")
    with pytest.raises(CommandError, match=r"images\.file: found") as failure:
        stack.preview()
    assert "Traceback" not in str(failure.value)


@pytest.mark.parametrize("length", [300, 5000])
def test_a_talosctl_that_can_be_no_path_is_refused_without_a_traceback(
    new_stack: NewStack, length: int
) -> None:
    stack = new_stack({"upstreams": {"docker.io": {"port": host.free_port()}}})
    stack.configure({"demo": {"talosctl": "n" * length}}, key="clusters")
    with pytest.raises(CommandError, match=r"clusters\.demo\.talosctl: found") as failure:
        stack.preview()
    assert "Traceback" not in str(failure.value)


def test_a_key_that_there_is_not_is_refused(new_stack: NewStack) -> None:
    stack = new_stack({"upstreams": {"docker.io": {"port": host.free_port()}}})
    stack.configure({"upstreams": {}}, key="cachess")
    with pytest.raises(CommandError, match=r"cachess: found an unknown key \(did you mean caches"):
        stack.preview()


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
