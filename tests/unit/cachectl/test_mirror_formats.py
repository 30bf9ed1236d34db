import json
from pathlib import PurePosixPath

import pytest
import yaml

from cachectl import mirrors
from cachectl.errors import UsageError

MIRRORS = {"docker.io": "http://172.17.0.1:5000", "localhost:5005": "http://172.17.0.1:5001"}


def test_k3d_gets_an_endpoint_for_each_registry() -> None:
    files = mirrors.k3d(MIRRORS)

    assert yaml.safe_load(files["registries.yaml"]) == {
        "mirrors": {host: {"endpoint": [url]} for host, url in MIRRORS.items()}
    }


def test_docker_gets_the_cache_of_docker_hub_and_leave_to_ask_it_without_tls() -> None:
    assert json.loads(mirrors.docker(MIRRORS)["daemon.json"]) == {
        "registry-mirrors": ["http://172.17.0.1:5000"],
        "insecure-registries": ["172.17.0.1:5000"],
    }


def test_docker_without_a_cache_of_docker_hub_is_refused() -> None:
    with pytest.raises(UsageError, match=r"there are those of: quay\.io"):
        mirrors.docker({"quay.io": "http://172.17.0.1:5002"})


def test_kind_mounts_the_files_of_containerd() -> None:
    files = mirrors.kind(MIRRORS, PurePosixPath("/some/where"))
    config = yaml.safe_load(files["kind.yaml"])

    assert (config["kind"], config["apiVersion"]) == ("Cluster", "kind.x-k8s.io/v1alpha4")
    [mount] = config["nodes"][0]["extraMounts"]
    assert mount["hostPath"] == "/some/where/certs.d"
    assert f'config_path = "{mount["containerPath"]}"' in config["containerdConfigPatches"][0]
    assert {name for name in files if name.endswith(".toml")} == {
        "certs.d/docker.io/hosts.toml",
        "certs.d/localhost_5005_/hosts.toml",
    }


def test_talos_gets_documents_or_what_it_read_up_to_1_11() -> None:
    [documents] = mirrors.talos(MIRRORS).values()
    [legacy] = mirrors.talos(MIRRORS, legacy=True).values()

    assert [one["name"] for one in yaml.safe_load_all(documents)] == list(MIRRORS)
    assert list(yaml.safe_load(legacy)["machine"]["registries"]["mirrors"]) == list(MIRRORS)
