from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from components import engine, hooks, registry_cache, settings
from components.belongings import Belongings, OwnedByAnotherError
from components.engine import EngineContainer, EngineFacts, EngineNetwork
from components.hooks import NetworkHooks
from components.placement import OnEngine
from components.registry_cache import names_on_engine
from talos_registry_cache.engine import labels
from tests.unit.components import declared_caches
from tests.unit.components.declared_caches import GATEWAY
from tests.unit.components.parsed_settings import caches_of
from tests.unit.components.stack_graph import (
    CACHING_PROXY,
    CONTAINER,
    CREDENTIAL_HELPER,
    IMAGE,
    NETWORK,
    REGISTRY_CACHE,
    UNKNOWN,
    VOLUME,
    Declared,
    Graph,
    Secret,
    image_id,
)

ROOT = Path(__file__).resolve().parents[3]

IMAGE_NAME = "registry:3.1.2"
TWO = {"upstreams": {"docker.io": None, "quay.io": None}}
WITH_USER = {"upstreams": {"docker.io": {"username": "me"}, "quay.io": None, "ghcr.io": None}}
PASSWORD = "hunter2'\"$"  # noqa: S105


def declare(
    caches: Mapping[str, Any],
    *,
    passwords: Mapping[str, str] | None = None,
    facts: EngineFacts | None = None,
    stack: str = "dev",
    preview: bool = False,
) -> Graph:
    """The caches that some settings ask for, with passwords at their upstreams."""
    return declared_caches.declare(
        caches, secrets={"passwords": passwords or {}}, facts=facts, stack=stack, preview=preview
    )


def stack_file(stack: str) -> Any:
    text = (ROOT / f"Pulumi.{stack}.yaml").read_text()
    return yaml.safe_load(text)["config"]["caches"]


def cache_of(graph: Graph, host: str) -> Declared:
    return graph.one(CONTAINER, f"{host}-container")


def ports_of(graph: Graph, host: str) -> list[tuple[str, float]]:
    return [(port["ip"], port["external"]) for port in cache_of(graph, host).inputs["ports"]]


def facts_of(**found: Any) -> EngineFacts:
    """Facts of an engine that has only what is found."""
    return EngineFacts(GATEWAY, {}, **found, stack="dev", generation="new")


# The stacks of the project


@pytest.mark.parametrize("preview", [False, True])
@pytest.mark.parametrize(
    ("stack", "prefix", "ports"),
    [
        (
            "dev",
            "registry-dev",
            {
                "docker.io": 5000,
                "registry.k8s.io": 5001,
                "quay.io": 5002,
                "gcr.io": 5003,
                "ghcr.io": 5004,
            },
        ),
        ("guide", "registry", {"docker.io": 5000, "k8s.gcr.io": 5001, "quay.io": 5002}),
        (
            "ci",
            "registry-ci",
            {
                "docker.io": 5100,
                "registry.k8s.io": 5101,
                "quay.io": 5102,
                "gcr.io": 5103,
                "ghcr.io": 5104,
            },
        ),
    ],
)
def test_a_stack_is_one_cache_for_each_upstream(
    stack: str, prefix: str, ports: dict[str, int], *, preview: bool
) -> None:
    graph = declare(stack_file(stack), stack=stack, preview=preview)

    hosts = sorted(ports)
    assert graph.names(REGISTRY_CACHE) == ["caches"]
    assert graph.names(CACHING_PROXY) == hosts
    assert graph.names(CREDENTIAL_HELPER) == ["anonymous"]
    assert graph.names(CONTAINER) == sorted(
        ["anonymous-writer", *map("{}-container".format, hosts)]
    )
    assert graph.names(VOLUME) == sorted(["anonymous-volume", *map("{}-storage".format, hosts)])
    assert [network.inputs["name"] for network in graph.all(NETWORK)] == [prefix]
    for host, port in ports.items():
        assert cache_of(graph, host).inputs["name"] == f"{prefix}-{host}"
        assert ports_of(graph, host) == [("127.0.0.1", port), (GATEWAY, port)]
        assert graph.one(VOLUME, f"{host}-storage").inputs["name"] == f"{prefix}-{host}"
        assert graph.one(VOLUME, f"{host}-storage").retain_on_delete is (stack != "ci")


def test_the_containers_of_the_guide_are_named_as_there() -> None:
    graph = declare(stack_file("guide"), stack="guide")

    names = {cache.inputs["name"] for cache in graph.all(CONTAINER)}
    assert names >= {"registry-docker.io", "registry-k8s.gcr.io", "registry-quay.io"}


def test_two_stacks_share_no_name_on_the_engine() -> None:
    names = [
        {one.inputs["name"] for kind in (CONTAINER, VOLUME, NETWORK) for one in graph.all(kind)}
        for graph in (declare(stack_file(stack), stack=stack) for stack in ("dev", "guide", "ci"))
    ]

    dev, guide, ci = names
    assert not dev & guide
    assert not dev & ci
    assert not guide & ci


# The graph


def test_every_resource_hangs_below_the_component_that_made_it() -> None:
    graph = declare(WITH_USER, passwords={"docker.io": PASSWORD})

    parents = {one.name: one.parent for one in graph.resources}
    assert parents == {
        "caches": "talos-registry-cache-dev",
        "network": "caches",
        IMAGE_NAME: "caches",
        **dict.fromkeys(["docker.io", "quay.io", "ghcr.io"], "caches"),
        **dict.fromkeys(["docker.io-credentials", "anonymous"], "caches"),
        **{
            f"{host}-{part}": host
            for host in ("docker.io", "quay.io", "ghcr.io")
            for part in ("container", "storage")
        },
        **{
            f"{helper}-{part}": helper
            for helper in ("docker.io-credentials", "anonymous")
            for part in ("volume", "writer")
        },
    }


def test_all_that_is_on_the_engine_has_the_label_of_the_stack() -> None:
    graph = declare(WITH_USER, passwords={"docker.io": PASSWORD}, stack="mine")

    own = {"label": "talos-registry-cache.stack", "value": "mine"}
    for kind in (CONTAINER, VOLUME, NETWORK):
        assert all(own in one.inputs["labels"] for one in graph.all(kind))


def test_what_belongs_to_one_upstream_says_so() -> None:
    graph = declare(WITH_USER, passwords={"docker.io": PASSWORD})

    own = {"label": "talos-registry-cache.upstream", "value": "docker.io"}
    labelled = sorted(one.name for one in graph.resources if own in one.inputs.get("labels", []))
    assert labelled == [
        "docker.io-container",
        "docker.io-credentials-volume",
        "docker.io-credentials-writer",
        "docker.io-storage",
    ]


def test_an_image_is_pulled_once_and_kept() -> None:
    graph = declare(
        {
            "upstreams": {
                "docker.io": None,
                "quay.io": {"image": "registry:3.0.0"},
                "gcr.io": {"image": "registry:3.0.0"},
                "ghcr.io": {"image": IMAGE_NAME},
            }
        }
    )

    assert [image.inputs["name"] for image in graph.all(IMAGE)] == [IMAGE_NAME, "registry:3.0.0"]
    assert all(image.inputs["keepLocally"] is True for image in graph.all(IMAGE))
    assert cache_of(graph, "docker.io").inputs["image"] == image_id(IMAGE_NAME)
    assert cache_of(graph, "quay.io").inputs["image"] == image_id("registry:3.0.0")


def test_the_image_that_is_run_is_the_one_that_the_engine_has_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    built = f"talos-registry-cache/{IMAGE_NAME}"
    monkeypatch.setattr(engine, "image_to_run", {IMAGE_NAME: built}.get)
    graph = declare(TWO)

    assert [image.inputs["name"] for image in graph.all(IMAGE)] == [built]
    assert cache_of(graph, "quay.io").inputs["image"] == image_id(built)
    assert graph.outputs["caches"]["quay.io"]["image"] == built


def test_a_preview_does_not_know_the_image_yet() -> None:
    assert cache_of(declare(TWO, preview=True), "quay.io").inputs["image"] == UNKNOWN


def test_the_network_makes_way_for_itself_and_is_never_imported() -> None:
    there = {"registry-dev": EngineNetwork("leftover", [], {labels.STACK: "dev"})}

    (network,) = declare(TWO, facts=facts_of(networks=there)).all(NETWORK)

    assert [hook.__name__ for hook in network.before_create] == ["before_network"]
    assert [hook.__name__ for hook in network.after_create] == ["after_network"]
    assert network.delete_before_replace
    assert network.inputs["driver"] == "bridge"
    assert network.imported == ""


def test_a_cache_waits_for_its_network_once_its_name_and_port_are_free() -> None:
    before = cache_of(declare(TWO), "quay.io").before_create

    assert before[0] is hooks.make_way
    assert before[1].__qualname__ == "NetworkHooks.before_container"


def test_what_is_new_is_marked_with_its_owner_and_generation() -> None:
    graph = declare(WITH_USER, passwords={"docker.io": PASSWORD}, facts=facts_of())

    for one in (*graph.all(CONTAINER), *graph.all(VOLUME), *graph.all(NETWORK)):
        assert {"label": labels.GENERATION, "value": "new"} in one.inputs["labels"]
        assert labels.STATE in {found["label"] for found in one.inputs["labels"]}


def test_what_another_state_has_made_is_refused_before_anything_is_declared() -> None:
    theirs = {labels.STACK: "dev", labels.STATE: "https://caches.test#bob/caches"}
    facts = facts_of(
        containers={"registry-dev-quay.io": EngineContainer("running", theirs, [], [])}
    )

    with pytest.raises(OwnedByAnotherError, match="bob"):
        declare(TWO, facts=facts)
    graph = declare({**TWO, "takeOverFrom": [theirs[labels.STATE]]}, facts=facts)

    assert {"label": labels.GENERATION, "value": "new"} in (
        cache_of(graph, "quay.io").inputs["labels"]
    )


@pytest.mark.parametrize("preview", [False, True])
def test_every_name_on_the_engine_is_looked_at_for_another_owner(*, preview: bool) -> None:
    caches = {**WITH_USER, "namePrefix": "mine", "storage": {"volumePrefix": "cached"}}
    parsed = settings.parse("dev", {"caches": caches, "passwords": {"docker.io": PASSWORD}})

    graph = declare(caches, passwords={"docker.io": PASSWORD}, preview=preview)

    made = (*graph.all(CONTAINER), *graph.all(VOLUME), *graph.all(NETWORK))
    assert {one.inputs["name"] for one in made} <= set(names_on_engine("dev", caches_of(parsed)))


def test_all_caches_are_on_the_network_of_the_stack() -> None:
    graph = declare({**TWO, "namePrefix": "mine"})

    (network,) = graph.all(NETWORK)
    for host in ("docker.io", "quay.io"):
        assert cache_of(graph, host).inputs["networksAdvanced"] == [{"name": "mine"}]
    assert network.inputs["name"] == "mine"


def test_volumes_can_have_a_name_of_their_own() -> None:
    graph = declare({**TWO, "storage": {"volumePrefix": "cached"}})

    assert graph.one(VOLUME, "quay.io-storage").inputs["name"] == "cached-quay.io"
    assert cache_of(graph, "quay.io").inputs["name"] == "registry-dev-quay.io"


def test_a_host_with_a_port_has_names_that_the_engine_takes() -> None:
    upstream = {"port": 5000, "remoteUrl": "http://registry.test:5000"}
    graph = declare({"upstreams": {"registry.test:5000": upstream}})

    assert cache_of(graph, "registry.test:5000").inputs["name"] == (
        "registry-dev-registry.test_5000"
    )


# Offline


def test_going_offline_touches_the_containers_only() -> None:
    assert changed(declare(TWO), declare({**TWO, "offline": True})) == {
        "docker.io-container",
        "quay.io-container",
    }


def test_the_stack_without_network_has_the_volumes_of_dev() -> None:
    dev, airgap = (declare(stack_file(stack), stack=stack) for stack in ("dev", "airgap"))

    storages = [
        {one.inputs["name"] for one in graph.all(VOLUME) if one.name.endswith("-storage")}
        for graph in (dev, airgap)
    ]
    assert storages[0] == storages[1]


# Credentials


def test_upstreams_without_a_user_share_one_helper() -> None:
    graph = declare(WITH_USER, passwords={"docker.io": PASSWORD})

    mounted = {
        host: cache_of(graph, host).inputs["volumes"][1]["volumeName"]
        for host in ("docker.io", "quay.io", "ghcr.io")
    }
    assert mounted == {
        "docker.io": "registry-dev-docker.io-credentials",
        "quay.io": "registry-dev-anonymous",
        "ghcr.io": "registry-dev-anonymous",
    }


def test_no_anonymous_helper_is_made_that_nobody_needs() -> None:
    graph = declare(
        {"upstreams": {"docker.io": {"username": "me"}}}, passwords={"docker.io": PASSWORD}
    )

    assert graph.names(CREDENTIAL_HELPER) == ["docker.io-credentials"]


@pytest.mark.parametrize("preview", [False, True])
def test_the_password_is_in_one_secret_and_nowhere_else(*, preview: bool) -> None:
    graph = declare(WITH_USER, passwords={"docker.io": "hunter2"}, preview=preview)

    (upload,) = graph.one(CONTAINER, "docker.io-credentials-writer").inputs["uploads"]
    secret = upload.pop("content")
    assert isinstance(secret, Secret)
    assert "hunter2" in secret.value
    assert "hunter2" not in repr(graph)


# Changes


def changed(before: Graph, after: Graph) -> set[str]:
    one, other = before.inputs(), after.inputs()
    return {
        name
        for kind, name in one.keys() | other.keys()
        if one.get((kind, name)) != other.get((kind, name))
    }


def test_a_changed_port_touches_one_container() -> None:
    before = declare(TWO)
    after = declare({"upstreams": {"docker.io": None, "quay.io": {"port": 5999}}})

    assert changed(before, after) == {"quay.io-container"}


def test_an_added_upstream_touches_no_other() -> None:
    before = declare(TWO)
    after = declare({"upstreams": {"ghcr.io": None, **TWO["upstreams"]}})

    assert changed(before, after) == {"ghcr.io", "ghcr.io-container", "ghcr.io-storage"}


def test_another_image_for_one_upstream_touches_one_container() -> None:
    before = declare(TWO)
    after = declare({"upstreams": {"docker.io": None, "quay.io": {"image": "registry:3.0.0"}}})

    assert changed(before, after) == {"quay.io-container", "registry:3.0.0"}


def test_another_password_touches_the_script_and_no_cache() -> None:
    before = declare(WITH_USER, passwords={"docker.io": "old"})
    after = declare(WITH_USER, passwords={"docker.io": "new"})

    assert changed(before, after) == {"docker.io-credentials-writer"}


def test_the_same_settings_declare_the_same() -> None:
    passwords = {"docker.io": PASSWORD}

    assert (
        changed(declare(WITH_USER, passwords=passwords), declare(WITH_USER, passwords=passwords))
        == set()
    )


# Addresses


def test_ports_are_open_on_loopback_and_where_nodes_come_from() -> None:
    graph = declare(TWO, facts=EngineFacts("10.5.0.1", {}))

    assert ports_of(graph, "quay.io") == [("10.5.0.1", 5002), ("127.0.0.1", 5002)]


def test_ports_are_open_on_loopback_only_where_the_engine_is_in_a_virtual_machine() -> None:
    graph = declare(TWO, facts=EngineFacts("host.docker.internal", {}))

    assert ports_of(graph, "quay.io") == [("127.0.0.1", 5002)]


def test_a_given_mirror_host_wins_over_what_the_engine_says() -> None:
    graph = declare({**TWO, "mirrorHost": "10.9.0.1"})

    assert ports_of(graph, "quay.io") == [("10.9.0.1", 5002), ("127.0.0.1", 5002)]


def test_loopback_as_mirror_host_is_published_once() -> None:
    graph = declare({**TWO, "mirrorHost": "127.0.0.1"})

    assert ports_of(graph, "quay.io") == [("127.0.0.1", 5002)]


def test_given_addresses_are_the_only_ones() -> None:
    graph = declare({**TWO, "publishOn": ["10.9.0.2", "10.9.0.1"]})

    assert ports_of(graph, "quay.io") == [("10.9.0.1", 5002), ("10.9.0.2", 5002)]


def test_addresses_come_in_the_order_that_the_engine_has_them_in() -> None:
    facts = EngineFacts(GATEWAY, {"registry-dev-quay.io": [GATEWAY, "127.0.0.1"]})

    graph = declare(TWO, facts=facts)

    assert ports_of(graph, "quay.io") == [(GATEWAY, 5002), ("127.0.0.1", 5002)]
    assert ports_of(graph, "docker.io") == [("127.0.0.1", 5000), (GATEWAY, 5000)]


def published_on(wanted: list[str], published: list[str]) -> Sequence[str]:
    """The addresses on which a container is published that is so now."""
    facts = EngineFacts(GATEWAY, {"one": published})
    placement = OnEngine(
        prefix="registry-dev",
        publish_on=wanted,
        writer_image="sha256:0",
        belongings=Belongings(facts, "here", "registry-dev"),
        network_hooks=NetworkHooks("registry-dev"),
    )
    return placement._addresses("one")


@pytest.mark.parametrize(
    ("wanted", "published", "order"),
    [
        (["b", "a"], [], ["a", "b"]),
        (["a", "b"], ["b", "a"], ["b", "a"]),
        (["b", "a"], ["a", "b"], ["a", "b"]),
        (["b", "a"], ["b"], ["a", "b"]),
        (["a"], ["b", "a"], ["a"]),
        (["b", "a"], ["b", "c"], ["a", "b"]),
    ],
)
def test_the_order_of_the_engine_counts_if_it_has_just_the_wanted_addresses(
    wanted: list[str], published: list[str], order: list[str]
) -> None:
    assert published_on(wanted, published) == order


ADDRESSES = st.lists(st.sampled_from("abcd"), unique=True)


@given(wanted=ADDRESSES, published=ADDRESSES)
def test_all_wanted_addresses_are_published_and_no_other(
    wanted: list[str], published: list[str]
) -> None:
    assert sorted(published_on(wanted, published)) == sorted(wanted)


# What only this machine shows to be wrong


@pytest.mark.parametrize(
    ("written", "is_refused"),
    [
        ({}, True),
        ({"mirrorHost": "10.0.0.9"}, False),
        ({"mirrorHost": "10.0.0.9", "publishOn": ["0.0.0.0"]}, True),
        ({"publishOn": ["127.0.0.1"]}, True),
    ],
)
def test_caches_that_ask_themselves_at_the_address_of_this_machine(
    written: dict[str, Any], *, is_refused: bool
) -> None:
    via = {"mirrors": {"docker.io": f"http://{GATEWAY}:5002"}}
    caches = caches_of(settings.parse("dev", {"caches": {**TWO, "via": via, **written}}))

    lines = [str(one) for one in registry_cache.mistakes(caches, EngineFacts(GATEWAY, {}))]

    text = f"found http://{GATEWAY}:5002, which is this stack's own cache of quay.io"
    allowed = "the registry's own URL, or another cache's"
    assert lines == is_refused * [f'via.mirrors["docker.io"]: {text}; allowed: {allowed}']


def test_the_caches_of_another_stack_on_this_machine_may_be_asked() -> None:
    via = {"mirrors": {"docker.io": f"http://{GATEWAY}:6000"}}
    caches = caches_of(settings.parse("dev", {"caches": {**TWO, "via": via}}))

    assert not list(registry_cache.mistakes(caches, EngineFacts(GATEWAY, {})))
