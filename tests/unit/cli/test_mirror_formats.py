import json
import tomllib
from pathlib import PurePosixPath

import pytest
import yaml

from talos_registry_cache.cli import mirror_formats
from talos_registry_cache.cli.errors import UsageError
from talos_registry_cache.endpoint import Endpoint
from talos_registry_cache.talos.machine_config import MirrorForm

MIRRORS = {
    "docker.io": Endpoint("http://172.17.0.1:5000"),
    "localhost:5005": Endpoint("http://172.17.0.1:5001"),
}
CLOSED = {
    "docker.io": Endpoint("https://172.17.0.1:5000", "PEM", "adam", "s3cret"),
    "quay.io": Endpoint("https://172.17.0.1:5001", "PEM"),
}


def test_docker_gets_the_docker_hub_cache_with_its_certificate_or_without_tls() -> None:
    assert json.loads(mirror_formats.docker(MIRRORS)["daemon.json"]) == {
        "registry-mirrors": ["http://172.17.0.1:5000"],
        "insecure-registries": ["172.17.0.1:5000"],
    }
    files = mirror_formats.docker({"docker.io": Endpoint("https://172.17.0.1:5000", "PEM")})
    assert json.loads(files["daemon.json"]) == {"registry-mirrors": ["https://172.17.0.1:5000"]}
    assert files["certs.d/172.17.0.1:5000/ca.crt"] == "PEM"


def test_kind_mounts_the_files_of_containerd() -> None:
    files = mirror_formats.kind(MIRRORS, PurePosixPath("/some/where"))
    config = yaml.safe_load(files["kind.yaml"])

    assert (config["kind"], config["apiVersion"]) == ("Cluster", "kind.x-k8s.io/v1alpha4")
    [mount] = config["nodes"][0]["extraMounts"]
    assert mount["hostPath"] == "/some/where/certs.d"
    assert f'config_path = "{mount["containerPath"]}"' in config["containerdConfigPatches"][0]
    assert {name for name in files if name.endswith(".toml")} == {
        "certs.d/docker.io/hosts.toml",
        "certs.d/localhost_5005_/hosts.toml",
    }


def test_nodes_that_skip_the_fallback_ask_mirrors_only() -> None:
    [talos] = mirror_formats.talos(MIRRORS, skip_fallback=True).values()
    folders = (
        mirror_formats.containerd(MIRRORS, skip_fallback=True),
        mirror_formats.kind(MIRRORS, PurePosixPath("/some"), skip_fallback=True),
    )

    assert all(one["skipFallback"] for one in yaml.safe_load_all(talos))
    for files in folders:
        hosts = tomllib.loads(files["certs.d/docker.io/hosts.toml"])
        # containerd's way to have no server.
        assert hosts["server"] == MIRRORS["docker.io"].url


def test_talos_gets_documents_or_the_form_of_1_11_and_earlier() -> None:
    """The contract tests of talosctl show that it accepts both."""
    [documents] = mirror_formats.talos(CLOSED).values()
    [legacy] = mirror_formats.talos(CLOSED, MirrorForm.LEGACY).values()

    named = [one["name"] for one in yaml.safe_load_all(documents)]
    assert named[:2] == list(yaml.safe_load(legacy)["machine"]["registries"]["mirrors"])


def test_k3d_gets_endpoints_passwords_and_certificates_that_nodes_mount() -> None:
    files = mirror_formats.k3d(CLOSED)

    assert yaml.safe_load(files["registries.yaml"]) == {
        "mirrors": {host: {"endpoint": [mirror.url]} for host, mirror in CLOSED.items()},
        "configs": {
            "172.17.0.1:5000": {
                "auth": {"username": "adam", "password": "s3cret"},
                "tls": {"ca_file": "/etc/rancher/k3s/caches/1.crt"},
            },
            "172.17.0.1:5001": {"tls": {"ca_file": "/etc/rancher/k3s/caches/2.crt"}},
        },
    }
    assert (files["ca/1.crt"], files["ca/2.crt"]) == ("PEM", "PEM")
    assert "--volume $PWD/ca:/etc/rancher/k3s/caches@all" in files["registries.yaml"]
    assert list(yaml.safe_load(mirror_formats.k3d(MIRRORS)["registries.yaml"])) == ["mirrors"]


def test_each_format_but_dockers_has_a_mirror_for_all_other_registries() -> None:
    mirrors = {**MIRRORS, "*": Endpoint("http://172.17.0.1:5010")}

    k3d = yaml.safe_load(mirror_formats.k3d(mirrors)["registries.yaml"])
    assert k3d["mirrors"]["*"] == {"endpoint": ["http://172.17.0.1:5010"]}
    assert "certs.d/_default/hosts.toml" in mirror_formats.containerd(mirrors)
    [documents] = mirror_formats.talos(mirrors).values()
    assert "*" in [one["name"] for one in yaml.safe_load_all(documents)]


@pytest.mark.parametrize(
    ("mirrors", "error"),
    [
        ({"quay.io": Endpoint("http://172.17.0.1:5002")}, r"there are caches for: quay\.io"),
        (CLOSED, r"docker login 172\.17\.0\.1:5000"),
    ],
)
def test_docker_needs_a_docker_hub_cache_without_a_password(
    mirrors: dict[str, Endpoint], error: str
) -> None:
    with pytest.raises(UsageError, match=error) as refused:
        mirror_formats.docker(mirrors)

    assert "s3cret" not in str(refused.value)


def test_containerd_and_kind_get_the_certificate_beside_hosts_toml() -> None:
    for files in (
        mirror_formats.containerd(CLOSED),
        mirror_formats.kind(CLOSED, PurePosixPath("/some/where")),
    ):
        hosts = tomllib.loads(files["certs.d/docker.io/hosts.toml"])["host"]
        mirror = hosts["https://172.17.0.1:5000"]
        assert files[f"certs.d/docker.io/{mirror['ca']}"] == "PEM"
        assert mirror["header"]["Authorization"].startswith("Basic ")
