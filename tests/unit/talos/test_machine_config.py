import tomllib

import pytest
import yaml

from talos import machine_config
from talos.machine_config import MirrorForm
from talos.versions import Version

MIRRORS = {"docker.io": "http://172.17.0.1:5000", "ghcr.io": "http://172.17.0.1:5004"}


@pytest.mark.parametrize(
    ("talos", "form"),
    [
        (Version(0, 4), MirrorForm.LEGACY),
        (Version(1, 11, 6), MirrorForm.LEGACY),
        (Version(1, 12, 0, "-alpha.0"), MirrorForm.DOCUMENT),
        (Version(1, 13), MirrorForm.DOCUMENT),
    ],
)
def test_the_form_goes_by_the_version_on_the_nodes(talos: Version, form: MirrorForm) -> None:
    assert machine_config.form_for(talos) is form


def test_the_legacy_form() -> None:
    patch = machine_config.mirror_patch(MIRRORS, skip_fallback=False, form=MirrorForm.LEGACY)

    assert patch == (
        "machine:\n"
        "  registries:\n"
        "    mirrors:\n"
        "      docker.io:\n"
        "        endpoints:\n"
        "        - http://172.17.0.1:5000\n"
        "      ghcr.io:\n"
        "        endpoints:\n"
        "        - http://172.17.0.1:5004\n"
    )


def test_the_form_as_documents() -> None:
    patch = machine_config.mirror_patch(
        {"docker.io": MIRRORS["docker.io"]}, skip_fallback=False, form=MirrorForm.DOCUMENT
    )

    assert patch == (
        "apiVersion: v1alpha1\n"
        "kind: RegistryMirrorConfig\n"
        "name: docker.io\n"
        "endpoints:\n"
        "- url: http://172.17.0.1:5000\n"
    )


@pytest.mark.parametrize("form", MirrorForm)
def test_without_fallback_each_mirror_says_so(form: MirrorForm) -> None:
    patch = machine_config.mirror_patch(MIRRORS, skip_fallback=True, form=form)

    assert patch.count("skipFallback: true\n") == len(MIRRORS)
    assert list(yaml.safe_load_all(patch))


# What Talos writes; the expected texts are those of its own tests (hosts_test.go)


def test_hosts_toml_of_a_mirror() -> None:
    files = machine_config.hosts_toml({"docker.io": "https://my-registry"}, skip_fallback=False)

    assert files == {
        "docker.io": (
            "[host]\n  [host.'https://my-registry']\n    capabilities = ['pull', 'resolve']\n"
        )
    }


def test_hosts_toml_without_fallback_names_the_mirror_as_the_server() -> None:
    files = machine_config.hosts_toml(MIRRORS, skip_fallback=True)

    assert tomllib.loads(files["ghcr.io"]) == {
        "server": "http://172.17.0.1:5004",
        "capabilities": ["pull", "resolve"],
    }


@pytest.mark.parametrize(
    ("host", "folder"),
    [("quay.io", "quay.io"), ("some.host:123", "some.host_123_"), ("*", "_default")],
)
def test_the_folder_of_a_registry(host: str, folder: str) -> None:
    assert list(machine_config.hosts_toml({host: "http://a"}, skip_fallback=False)) == [folder]
