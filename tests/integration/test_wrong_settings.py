"""Wrong settings are refused before anything is changed."""

import json
from typing import Any

import pytest
from docker import DockerClient
from pulumi.automation import CommandError

from tests.integration.conftest import NewStack
from tests.integration.support import belongings, host

WRONG: dict[str, Any] = {
    "ttl": "9999999999999h",
    "mirrorHost": "not an address",
    "memorylimit": "64m",
    "memoryLimit": "1k",
    "publishOn": ["0.0.0.0", "127.0.0.1"],
    "logs": {"maxSize": f"{'9' * 30}g"},
    "tls": {"names": ["300.1.1.1"]},
    "via": {"mirrors": {"docker.io": "https://a.test"}, "ca": "-----BEGIN CERTIFICATE-----\n"},
    "upstreams": {
        "docker.io": {"port": 5000, "remoteUrl": "https://me:hunter2secret@registry-1.docker.io"},
        "quay.io": {"port": 5000},
        "ghcr.io": {"port": 70000, "username": "robot"},
        "unknown.example": {"port": 5005},
        "gcr.io": {"port": 5003, "remoteUrl": "https://gcr.io/v2/"},
    },
}
FOUND = (
    "caches.ttl: found ",
    "caches.mirrorHost: found ",
    "caches.memorylimit: found an unknown key",
    "caches.memoryLimit: found ",
    "caches.publishOn[0]: found ",
    "caches.logs.maxSize: found ",
    "caches.tls.names[0]: found ",
    "caches.via.ca: found ",
    'caches.upstreams["docker.io"].remoteUrl: found ',
    'caches.upstreams["quay.io"].port: found ',
    'caches.upstreams["ghcr.io"].port: found ',
    'caches.upstreams["unknown.example"].remoteUrl: found ',
    'caches.upstreams["gcr.io"].remoteUrl: found ',
    "cachess: found an unknown key (did you mean caches?)",
    """pulumi config set --secret --path 'passwords["ghcr.io"]'""",
)


@pytest.mark.parametrize("command", ["preview", "up"])
def test_all_mistakes_are_listed_and_nothing_is_created(new_stack: NewStack, command: str) -> None:
    stack = new_stack(WRONG)
    stack.configure({"upstreams": {}}, key="cachess")
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


@pytest.mark.parametrize("file", ["/dev/zero", "a\0b", "n" * 300])
def test_an_unreadable_file_of_images_is_refused_without_a_traceback(
    new_stack: NewStack, file: str
) -> None:
    stack = new_stack({"upstreams": {"docker.io": {"port": host.free_port()}}})
    stack.configure({"file": file}, key="images")
    with pytest.raises(CommandError, match=r"images\.file: found") as failure:
        stack.preview()
    assert "Traceback" not in str(failure.value)


@pytest.mark.parametrize("length", [300, 5000])
def test_an_impossible_path_of_talosctl_is_refused_without_a_traceback(
    new_stack: NewStack, length: int
) -> None:
    stack = new_stack({"upstreams": {"docker.io": {"port": host.free_port()}}})
    stack.configure({"demo": {"talosctl": "n" * length}}, key="clusters")
    with pytest.raises(CommandError, match=r"clusters\.demo\.talosctl: found") as failure:
        stack.preview()
    assert "Traceback" not in str(failure.value)


def test_wrong_settings_leave_running_caches_alone(new_stack: NewStack) -> None:
    stack = new_stack({"upstreams": {"docker.io": {"port": host.free_port()}}})
    stack.up()
    before = stack.belongings()
    stack.configure(WRONG)
    with pytest.raises(CommandError):
        stack.up()
    assert stack.belongings() == before
