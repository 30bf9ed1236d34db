"""An isolated stack differs only in its names and ports, and its output is translated back."""

import json
import os
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from components.settings.wildcard import Wildcard
from talos_registry_cache.review import isolation
from talos_registry_cache.review.isolation import PROJECT, Isolation, StackFile

ISOLATION = Isolation("pr-0badcafe-", {"dev": {5000: 15000, 5001: 15001, 5009: 15009, 80: 15080}})
DEFAULT_PORTS = {"docker.io": 5000}


def _text(**config: Any) -> str:
    return yaml.safe_dump({"config": {f"{PROJECT}:{key}": value for key, value in config.items()}})


def _isolated(text: str) -> dict[str, Any]:
    isolated, _ = ISOLATION.apply("dev", StackFile(text, DEFAULT_PORTS))
    config = yaml.safe_load(isolated)["config"]
    return {key.removeprefix(f"{PROJECT}:"): value for key, value in config.items()}


def test_names_are_prefixed_ports_mapped_and_default_ports_written_out() -> None:
    upstreams = {"docker.io": None, "quay.io": {"port": 5001, "image": "registry:3.0.0"}}
    storage = {"volumePrefix": "blobs", "onDestroy": "keep"}
    caches = {"namePrefix": "registry", "storage": storage, "upstreams": upstreams}
    assert _isolated(_text(caches=caches, mirrorsFrom="dev")) == {
        "caches": {
            "namePrefix": "pr-0badcafe-registry",
            "storage": {"volumePrefix": "pr-0badcafe-blobs", "onDestroy": "keep"},
            "upstreams": {
                "docker.io": {"port": 15000},
                "quay.io": {"port": 15001, "image": "registry:3.0.0"},
            },
        },
        "mirrorsFrom": "pr-0badcafe-dev",
    }


def test_the_ports_of_the_wildcard_mirror_and_of_the_local_registry_are_mapped() -> None:
    settings = {"wildcard": {}, "local": {"port": 5001, "image": "registry:3.0.0"}}
    assert _isolated(_text(caches=settings))["caches"] == {
        "wildcard": {"port": 15009},
        "local": {"port": 15001, "image": "registry:3.0.0"},
    }
    assert isolation.MORE_PORTS["wildcard"] == Wildcard().port


@pytest.mark.parametrize("wrong", ["5000", 5000.0, 70000, 0, -1, True, None, [5000]])
def test_invalid_port_is_left_for_the_program_to_report(wrong: Any) -> None:
    caches = {"upstreams": {"quay.io": {"port": wrong}}}
    assert _isolated(_text(caches=caches))["caches"] == caches


@pytest.mark.parametrize("is_root", [True, False])
def test_privileged_port_is_mapped_only_for_root(
    monkeypatch: pytest.MonkeyPatch, *, is_root: bool
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0 if is_root else 1000)
    text = _text(caches={"upstreams": {"quay.io": {"port": 80}}})
    port = _isolated(text)["caches"]["upstreams"]["quay.io"]["port"]
    assert port == (15080 if is_root else 80)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "config:",
        "config: []",
        "a: b: c",
        "config: {talos-registry-cache:caches: 3}\n",
        "config: {talos-registry-cache:caches: {upstreams: 3, storage: 3, placement: 3}}\n",
        "config: {talos-registry-cache:caches: {upstreams: {docker.io: 3}}}\n",
    ],
)
def test_malformed_stack_file_is_left_for_pulumi_to_report(text: str) -> None:
    file = StackFile(text, DEFAULT_PORTS)
    isolated, _ = ISOLATION.apply("dev", file)
    assert isolated == text or yaml.safe_load(isolated) == yaml.safe_load(text)
    assert (file.ports, file.mirrors_from, file.lock) == ({}, None, None)
    assert not file.runs_on_swarm


def test_stand_in_of_a_secret_changes_with_its_ciphertext() -> None:
    def stand_ins(ciphertext: str) -> dict[str, str]:
        text = _text(passwords={"docker.io": {"secure": ciphertext}})
        isolated, secrets = ISOLATION.apply("dev", StackFile(text))
        assert ciphertext not in isolated
        return dict(secrets)

    first, same, other = map(stand_ins, ("v1:abc", "v1:abc", "v1:abd"))
    assert list(first) == [f'{PROJECT}:passwords["docker.io"]']
    assert first == same
    assert first != other


def test_salt_and_engine_of_the_stack_file_are_left_out() -> None:
    text = "encryptionsalt: v1:x\nconfig: {'docker:host': 'ssh://elsewhere', 'docker:x': 1}\n"
    isolated, _ = ISOLATION.apply("dev", StackFile(text))
    assert yaml.safe_load(isolated) == {"config": {"docker:x": 1}}


def test_output_has_the_names_and_ports_of_the_stack_file() -> None:
    printed = (
        "registry-pr-0badcafe-dev http://172.17.0.1:15000, pr-0badcafe-blobs 115000 15000a 15000."
    )
    assert ISOLATION.restore(printed) == (
        "registry-dev http://172.17.0.1:5000, blobs 115000 15000a 5000."
    )


@given(st.sets(st.integers(1, 65535), max_size=20), st.text(alphabet="a0: 12345", max_size=50))
def test_any_text_of_the_stack_files_is_restored_unchanged(ports: set[int], text: str) -> None:
    chosen = isolation.choose_ports([text], {"a": ports, "b": ports}, is_free=lambda _: True)
    apart = Isolation("pr-0badcafe-", chosen)
    assert len({*chosen["a"].values(), *chosen["b"].values()}) == 2 * len(ports)
    printed = {"name": f"{apart.prefix}x", "ports": [chosen["b"][port] for port in ports]}
    assert json.loads(apart.restore(json.dumps(printed))) == {"name": "x", "ports": list(ports)}
    assert apart.restore(text) == text


def test_only_free_ports_are_chosen() -> None:
    free = {12345, 12346}
    chosen = isolation.choose_ports([], {"a": [5000, 5001]}, is_free=lambda port: port in free)
    assert set(chosen["a"].values()) == free


@pytest.mark.parametrize("kind", ["engine", "swarm"])
def test_files_stacks_and_swarm_that_a_stack_uses_are_found(kind: str) -> None:
    placement = {"placement": {"kind": kind}}
    images = {"file": "./images.txt", "lock": "images.lock", "manifests": ["deploy/", "app.yaml"]}
    file = StackFile(_text(images=images, mirrorsFrom="dev", caches=placement))
    assert {"images.txt", "images.lock", "deploy", "app.yaml"} < file.reads
    assert (file.lock, file.mirrors_from) == ("images.lock", "dev")
    assert file.runs_on_swarm is (kind == "swarm")


def test_certificates_may_be_files_too_and_an_empty_text_names_none() -> None:
    caches = {"tls": {"certificate": "tls.pem"}, "namePrefix": ""}
    assert StackFile(_text(caches=caches)).reads == {"tls.pem"}
