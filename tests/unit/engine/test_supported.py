"""Engines that do not work are refused by their address, or by what they say they are."""

import pytest

from talos_registry_cache.engine import supported


@pytest.mark.parametrize(
    ("host", "is_here"),
    [
        ("", True),
        ("unix:///var/run/docker.sock", True),
        ("npipe:////./pipe/docker_engine", True),
        ("tcp://127.0.0.1:2375", True),
        ("tcp://localhost:2376", True),
        ("tcp://192.0.2.1:2376", False),
        ("https://192.0.2.1:2376", False),
        ("tcp://a..b:2376", False),
        ("ssh://me@192.0.2.1", False),
        # Docker runs `ssh`, for which even this name may be an alias of another machine.
        ("ssh://localhost", False),
    ],
)
def test_only_engines_of_this_machine_are_supported(host: str, *, is_here: bool) -> None:
    problem = supported.why_not_at(host)

    assert (problem == "") is is_here
    assert is_here or problem.startswith(f"found the container engine {host}, ")


def test_podman_is_not_supported() -> None:
    podman = {"Components": [{"Name": "Podman Engine", "Version": "5.7.0"}]}
    docker = {"Components": [{"Name": "Engine", "Version": "29.8.0"}, {"Name": "runc"}]}

    assert supported.why_not(podman).startswith("found Podman 5.7.0 ")
    assert supported.why_not(docker) == ""
    # Engines before 17.06 list no components.
    assert supported.why_not({}) == ""


@pytest.mark.parametrize(
    ("options", "is_rootless"),
    [
        (["name=seccomp,profile=builtin", "name=rootless", "name=cgroupns"], True),
        (["name=seccomp,profile=rootless"], False),
        (None, False),
    ],
)
def test_rootless_engines_are_known_by_their_security_options(
    options: list[str] | None, *, is_rootless: bool
) -> None:
    assert supported.is_rootless({"SecurityOptions": options}) is is_rootless
