"""A stack that is set apart differs in its names and ports alone, and is read back as it was."""

import json
import os
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from talos_registry_cache.review import isolation
from talos_registry_cache.review.isolation import PROJECT, Isolation

APART = Isolation("pr-0badcafe-", {"dev": {5000: 15000, 5001: 15001, 80: 15080}})
CUSTOMARY = {"docker.io": 5000}


def _stack_file(**config: Any) -> str:
    return yaml.safe_dump({"config": {f"{PROJECT}:{key}": value for key, value in config.items()}})


def _apart(text: str) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load(APART.apply("dev", text, CUSTOMARY).text)["config"]
    return {key.removeprefix(f"{PROJECT}:"): value for key, value in config.items()}


def test_ports_are_mapped_and_customary_ones_written_out() -> None:
    upstreams = {"docker.io": None, "quay.io": {"port": 5001, "image": "registry:3.0.0"}}
    assert _apart(_stack_file(caches={"upstreams": upstreams}))["caches"]["upstreams"] == {
        "docker.io": {"port": 15000},
        "quay.io": {"port": 15001, "image": "registry:3.0.0"},
    }


def test_names_that_a_stack_file_sets_are_prefixed() -> None:
    caches = {"namePrefix": "registry", "storage": {"volumePrefix": "blobs", "onDestroy": "keep"}}
    assert _apart(_stack_file(caches=caches, mirrorsFrom="dev")) == {
        "caches": {
            "namePrefix": "pr-0badcafe-registry",
            "storage": {"volumePrefix": "pr-0badcafe-blobs", "onDestroy": "keep"},
        },
        "mirrorsFrom": "pr-0badcafe-dev",
    }


@pytest.mark.parametrize("wrong", ["5000", 5000.0, 70000, 0, -1, True, None, [5000]])
def test_port_that_is_no_port_stays_for_the_program_to_refuse(wrong: Any) -> None:
    caches = {"upstreams": {"quay.io": {"port": wrong}}}
    assert _apart(_stack_file(caches=caches))["caches"] == caches


@pytest.mark.parametrize("is_root", [True, False])
def test_port_below_1024_is_mapped_only_for_those_who_may_have_it(
    monkeypatch: pytest.MonkeyPatch, *, is_root: bool
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0 if is_root else 1000)
    text = _stack_file(caches={"upstreams": {"quay.io": {"port": 80}}})
    port = _apart(text)["caches"]["upstreams"]["quay.io"]["port"]
    assert port == (15080 if is_root else 80)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "config:", "config: []", "a: b: c", "config: {talos-registry-cache:caches: 3}"],
)
def test_what_is_no_stack_file_does_not_stop_it(text: str) -> None:
    apart = APART.apply("dev", text, CUSTOMARY)
    assert yaml.safe_load(apart.text) == yaml.safe_load(text) if text != "a: b: c" else text
    assert list(isolation.ports_in(text, CUSTOMARY)) == []
    assert isolation.mirrors_from(text) is None
    assert isolation.image_file(text) is None
    assert not isolation.needs_simulation(text)


def test_secret_is_replaced_by_a_stand_in_that_differs_where_its_ciphertext_does() -> None:
    def stand_ins(ciphertext: str) -> dict[str, str]:
        text = _stack_file(passwords={"docker.io": {"secure": ciphertext}})
        apart = APART.apply("dev", text, CUSTOMARY)
        assert ciphertext not in apart.text
        return dict(apart.secrets)

    first, same, other = map(stand_ins, ("v1:abc", "v1:abc", "v1:abd"))
    assert list(first) == [f'{PROJECT}:passwords["docker.io"]']
    assert first == same
    assert first != other


def test_who_encrypted_the_file_and_the_engine_that_it_names_are_left_out() -> None:
    text = "encryptionsalt: v1:x\nconfig: {'docker:host': 'ssh://elsewhere', 'docker:x': 1}\n"
    apart = APART.apply("dev", text, CUSTOMARY)
    assert yaml.safe_load(apart.text) == {"config": {"docker:x": 1}}


def test_what_pulumi_says_is_put_back() -> None:
    said = (
        "registry-pr-0badcafe-dev http://172.17.0.1:15000, pr-0badcafe-blobs 115000 15000a 15000."
    )
    assert APART.restore(said) == "registry-dev http://172.17.0.1:5000, blobs 115000 15000a 5000."


@given(st.sets(st.integers(1, 65535), max_size=20), st.text(alphabet="a0: 12345", max_size=50))
def test_any_text_with_ports_of_the_stack_files_comes_back_as_it_was(
    ports: set[int], text: str
) -> None:
    chosen = isolation.choose_ports([text], {"a": ports, "b": ports}, is_free=lambda _: True)
    apart = Isolation("pr-0badcafe-", chosen)
    assert len({*chosen["a"].values(), *chosen["b"].values()}) == 2 * len(ports)
    said = json.dumps({"name": f"{apart.prefix}x", "ports": [chosen["b"][port] for port in ports]})
    assert json.loads(apart.restore(said)) == {"name": "x", "ports": list(ports)}
    assert apart.restore(text) == text


def test_port_that_something_has_is_not_chosen() -> None:
    free = {12345, 12346}
    chosen = isolation.choose_ports([], {"a": [5000, 5001]}, is_free=lambda port: port in free)
    assert set(chosen["a"].values()) == free


def test_what_a_stack_file_reads_beside_itself_is_found() -> None:
    text = _stack_file(images={"file": "./images.txt"}, mirrorsFrom="dev")
    assert isolation.image_file(text) == "images.txt"
    assert isolation.mirrors_from(text) == "dev"
    assert isolation.needs_simulation(text)


@pytest.mark.parametrize(
    ("placement", "on_swarm"),
    [("", False), (", placement: {kind: engine}", False), (", placement: {kind: swarm}", True)],
)
def test_a_stack_on_a_swarm_is_told_from_one_on_an_engine(
    placement: str, *, on_swarm: bool
) -> None:
    text = f"config: {{talos-registry-cache:caches: {{upstreams: {{}}{placement}}}}}"

    assert isolation.runs_on_swarm(text) is on_swarm
