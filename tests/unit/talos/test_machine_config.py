import tomllib
from base64 import b64encode

import pytest

from talos_registry_cache.endpoint import Endpoint
from talos_registry_cache.talos import machine_config
from talos_registry_cache.talos.machine_config import MirrorForm
from talos_registry_cache.talos.versions import Version

MIRRORS = {
    "docker.io": Endpoint("http://172.17.0.1:5000"),
    "ghcr.io": Endpoint("http://172.17.0.1:5004"),
}
CA = "-----BEGIN CERTIFICATE-----\nMIID\n-----END CERTIFICATE-----\n"
CLOSED = {
    "docker.io": Endpoint("https://172.17.0.1:5000", CA, "reader", "s3cret"),
    "ghcr.io": Endpoint("https://172.17.0.1:5004", CA),
}


@pytest.mark.parametrize(
    ("talos", "form"),
    [
        (Version(0, 4), MirrorForm.LEGACY),
        (Version(1, 11, 6), MirrorForm.LEGACY),
        (Version(1, 12, 0, "-alpha.0"), MirrorForm.DOCUMENT),
        (Version(1, 13), MirrorForm.DOCUMENT),
    ],
)
def test_the_form_depends_on_the_version_of_talos(talos: Version, form: MirrorForm) -> None:
    assert machine_config.form_for(talos) is form


# Mirrors with a CA or password


@pytest.mark.parametrize("form", MirrorForm)
def test_mirrors_at_the_same_address_share_their_ca(form: MirrorForm) -> None:
    shared = {host: Endpoint(f"https://team:5000/{host}", CA) for host in ("docker.io", "ghcr.io")}
    patch = machine_config.mirror_patch(shared, skip_fallback=False, form=form)

    assert patch.count(" ca: ") + patch.count("\nca: ") == 1


# hosts.toml; the expected texts are those of Talos's own tests (hosts_test.go)


def test_hosts_toml_of_a_mirror() -> None:
    files = machine_config.hosts_toml(
        {"docker.io": Endpoint("https://my-registry")}, skip_fallback=False
    )

    assert files == {
        "docker.io/hosts.toml": (
            "[host]\n  [host.'https://my-registry']\n    capabilities = ['pull', 'resolve']\n"
        )
    }


def test_hosts_toml_without_fallback_names_the_mirror_as_the_server() -> None:
    files = machine_config.hosts_toml(MIRRORS, skip_fallback=True)

    assert tomllib.loads(files["ghcr.io/hosts.toml"]) == {
        "server": "http://172.17.0.1:5004",
        "capabilities": ["pull", "resolve"],
    }


def test_registries_without_a_mirror_of_their_own_can_always_be_asked_themselves() -> None:
    wildcard = Endpoint("http://172.17.0.1:5010")
    files = machine_config.hosts_toml({"*": wildcard}, skip_fallback=True)

    assert tomllib.loads(files["_default/hosts.toml"]) == {
        "host": {wildcard.url: {"capabilities": ["pull", "resolve"]}}
    }


def test_hosts_toml_refers_to_the_ca_in_the_same_folder() -> None:
    files = machine_config.hosts_toml(
        {"some.host:123": Endpoint("https://my-registry1", "allcert")},
        skip_fallback=False,
        base="/etc/cri/conf.d/hosts",
    )

    assert files == {
        "some.host_123_/my-registry1-ca.crt": "allcert",
        "some.host_123_/hosts.toml": (
            "[host]\n  [host.'https://my-registry1']\n    capabilities = ['pull', 'resolve']\n"
            "    ca = '/etc/cri/conf.d/hosts/some.host_123_/my-registry1-ca.crt'\n"
        ),
    }


@pytest.mark.parametrize("skip", [False, True])
def test_hosts_toml_has_the_password_as_a_header(*, skip: bool) -> None:
    files = machine_config.hosts_toml(CLOSED, skip_fallback=skip)

    read = tomllib.loads(files["docker.io/hosts.toml"])
    mirror = read if skip else read["host"]["https://172.17.0.1:5000"]
    assert mirror["ca"] == "172.17.0.1:5000-ca.crt"
    assert mirror["header"] == {"Authorization": f"Basic {b64encode(b'reader:s3cret').decode()}"}
    assert "header" not in files["ghcr.io/hosts.toml"]
    assert "s3cret" not in repr(CLOSED)


@pytest.mark.parametrize(
    ("host", "folder"),
    [("quay.io", "quay.io"), ("some.host:123", "some.host_123_"), ("*", "_default")],
)
def test_the_folder_of_a_registry(host: str, folder: str) -> None:
    files = machine_config.hosts_toml({host: Endpoint("http://a")}, skip_fallback=False)
    assert list(files) == [f"{folder}/hosts.toml"]
