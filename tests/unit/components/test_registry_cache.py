import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from components import hooks, registry_cache, settings
from components.belongings import Belongings, OwnedByAnotherError
from components.engine import ENGINE_IN_VM, EngineContainer, EngineFacts, EngineNetwork
from components.hooks import NetworkHooks
from components.on_engine import OnEngine
from components.registry_cache import names_on_engine
from talos_registry_cache.engine import labels
from tests.unit.components.declared_caches import GATEWAY, declare
from tests.unit.components.parsed_settings import caches_of, parsed_caches
from tests.unit.components.stack_graph import (
    CACHING_PROXY,
    CONTAINER,
    CREDENTIAL_HELPER,
    IMAGE,
    NETWORK,
    REGISTRY_CACHE,
    VOLUME,
    Declared,
    Graph,
    image_id,
)

ROOT = Path(__file__).resolve().parents[3]

IMAGE_NAME = "registry:3.1.2"
FRONT_IMAGE = "nginx:1.30.6-alpine"
TWO = {"upstreams": {"docker.io": None, "quay.io": None}}
WITH_USER: Mapping[str, Any] = {
    "upstreams": {"docker.io": {"username": "me"}, "quay.io": None, "ghcr.io": None}
}
REGISTRIES = {f"{host}-registry" for host in WITH_USER["upstreams"]}
OF_USER = {f"docker.io-credentials{part}" for part in ("", "-volume", "-writer")}
PASSWORD = {"docker.io": "hunter2'\"$"}


def with_quay(**written: Any) -> Mapping[str, Any]:
    """WITH_USER with other settings for quay.io."""
    return {"upstreams": {**WITH_USER["upstreams"], "quay.io": written}}


def stack_file(stack: str) -> Any:
    text = (ROOT / f"Pulumi.{stack}.yaml").read_text()
    config = yaml.safe_load(text)["config"]
    # Pulumi adds the project's name when it writes the file.
    return next(value for key, value in config.items() if key.rpartition(":")[2] == "caches")


def cache_of(graph: Graph, host: str) -> Declared:
    """The container that clients reach: the front."""
    return graph.one(CONTAINER, f"{host}-container")


def registry_of(graph: Graph, host: str) -> Declared:
    return graph.one(CONTAINER, f"{host}-registry")


def ports_of(graph: Graph, host: str) -> list[tuple[str, float]]:
    return [(port["ip"], port["external"]) for port in cache_of(graph, host).inputs["ports"]]


def facts_of(**found: Any) -> EngineFacts:
    """Facts of an engine in a run with a generation."""
    return EngineFacts(GATEWAY, {}, **found, stack="dev", generation="new")


# The stacks of the project


@pytest.mark.parametrize("preview", [False, True])
@pytest.mark.parametrize(
    ("stack", "prefix"),
    [
        ("dev", "registry-dev"),
        ("guide", "registry"),
        ("ci", "registry-ci"),
    ],
)
def test_a_stack_is_one_cache_for_each_upstream(stack: str, prefix: str, *, preview: bool) -> None:
    written = stack_file(stack)
    graph = declare(written, stack=stack, preview=preview)

    upstreams = caches_of(settings.parse(stack, {"caches": written})).upstreams
    hosts = sorted(upstreams)
    assert graph.names(REGISTRY_CACHE) == ["caches"]
    assert graph.names(CACHING_PROXY) == hosts
    assert graph.names(CREDENTIAL_HELPER) == ["anonymous", "fronts"]
    assert graph.names(CONTAINER) == sorted(
        ["anonymous-writer", "fronts-writer"]
        + [f"{host}-{part}" for host in hosts for part in ("container", "registry")]
    )
    assert graph.names(VOLUME) == sorted(
        ["anonymous-volume", "fronts-volume"]
        + [f"{host}-{part}" for host in hosts for part in ("storage", "front")]
    )
    assert [network.inputs["name"] for network in graph.all(NETWORK)] == [prefix]
    for host, upstream in upstreams.items():
        assert cache_of(graph, host).inputs["name"] == f"{prefix}-{host}"
        assert ports_of(graph, host) == [("127.0.0.1", upstream.port), (GATEWAY, upstream.port)]
        assert graph.one(VOLUME, f"{host}-storage").inputs["name"] == f"{prefix}-{host}"
        assert graph.one(VOLUME, f"{host}-storage").retain_on_delete is (stack != "ci")


# Resources


def test_resources_are_children_of_the_component_that_makes_them() -> None:
    graph = declare(WITH_USER, secrets={"passwords": PASSWORD})

    parents = {one.name: one.parent for one in graph.resources}
    assert parents == {
        "caches": "talos-registry-cache-dev",
        "network": "caches",
        IMAGE_NAME: "caches",
        FRONT_IMAGE: "caches",
        **dict.fromkeys(["docker.io", "quay.io", "ghcr.io"], "caches"),
        **dict.fromkeys(["docker.io-credentials", "anonymous", "fronts"], "caches"),
        **{
            f"{host}-{part}": host
            for host in ("docker.io", "quay.io", "ghcr.io")
            for part in ("container", "registry", "storage", "front")
        },
        **{
            f"{helper}-{part}": helper
            for helper in ("docker.io-credentials", "anonymous", "fronts")
            for part in ("volume", "writer")
        },
    }


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

    images = [image.inputs["name"] for image in graph.all(IMAGE)]
    assert sorted(images) == sorted([IMAGE_NAME, FRONT_IMAGE, "registry:3.0.0"])
    assert all(image.inputs["keepLocally"] is True for image in graph.all(IMAGE))
    assert registry_of(graph, "docker.io").inputs["image"] == image_id(IMAGE_NAME)
    assert registry_of(graph, "quay.io").inputs["image"] == image_id("registry:3.0.0")


def test_the_network_is_deleted_before_it_is_replaced_and_never_imported() -> None:
    there = {"registry-dev": EngineNetwork("leftover", [], {labels.STACK: "dev"})}

    (network,) = declare(TWO, facts=facts_of(networks=there)).all(NETWORK)

    assert [hook.__name__ for hook in network.before_create] == ["before_network"]
    assert [hook.__name__ for hook in network.after_create] == ["after_network"]
    assert network.delete_before_replace
    assert network.inputs["driver"] == "bridge"
    assert network.imported == ""


def test_a_cache_checks_its_name_and_port_and_then_waits_for_its_network() -> None:
    before = cache_of(declare(TWO), "quay.io").before_create

    assert before[0] is hooks.make_way
    assert before[1].__qualname__ == "NetworkHooks.before_container"


def test_new_resources_have_labels_of_their_stack_state_and_generation() -> None:
    graph = declare(WITH_USER, secrets={"passwords": PASSWORD}, facts=facts_of(), stack="mine")

    of_upstream = set()
    for one in (*graph.all(CONTAINER), *graph.all(VOLUME), *graph.all(NETWORK)):
        found = {label["label"]: label["value"] for label in one.inputs["labels"]}
        assert (found[labels.STACK], found[labels.GENERATION]) == ("mine", "new")
        assert found[labels.STATE]
        if found.get("talos-registry-cache.upstream") == "docker.io":
            of_upstream.add(one.name.removeprefix("docker.io-"))
    assert of_upstream == {
        "container",
        "registry",
        "storage",
        "front",
        "credentials-volume",
        "credentials-writer",
    }


def test_resources_of_another_state_are_refused_unless_taken_over() -> None:
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
def test_the_ownership_check_covers_every_declared_name(*, preview: bool) -> None:
    storage = {"volumePrefix": "cached"}
    caches = {**WITH_USER, "namePrefix": "mine", "storage": storage, "wildcard": {}}
    parsed = settings.parse("dev", {"caches": caches, "passwords": PASSWORD})

    graph = declare(caches, secrets={"passwords": PASSWORD}, preview=preview)

    made = (*graph.all(CONTAINER), *graph.all(VOLUME), *graph.all(NETWORK))
    assert {one.inputs["name"] for one in made} <= set(names_on_engine("dev", caches_of(parsed)))


def test_name_and_volume_prefix_set_the_names_on_the_engine() -> None:
    upstream = {"port": 5005, "remoteUrl": "http://registry.test:5000"}
    upstreams = {"quay.io": None, "registry.test:5000": upstream}
    graph = declare(
        {"upstreams": upstreams, "namePrefix": "mine", "storage": {"volumePrefix": "cached"}}
    )

    for host, name in (("quay.io", "quay.io"), ("registry.test:5000", "registry.test_5000")):
        assert graph.one(VOLUME, f"{host}-storage").inputs["name"] == f"cached-{name}"
        assert cache_of(graph, host).inputs["name"] == f"mine-{name}"
        assert cache_of(graph, host).inputs["networksAdvanced"] == [{"name": "mine"}]
    assert [network.inputs["name"] for network in graph.all(NETWORK)] == ["mine"]


def test_the_airgap_stack_uses_the_volumes_of_dev() -> None:
    dev, airgap = (declare(stack_file(stack), stack=stack) for stack in ("dev", "airgap"))

    storages = [
        {one.inputs["name"] for one in graph.all(VOLUME) if one.name.endswith("-storage")}
        for graph in (dev, airgap)
    ]
    assert storages[0] == storages[1]


# Credentials


def test_upstreams_without_a_user_share_one_helper() -> None:
    graph = declare(WITH_USER, secrets={"passwords": PASSWORD})

    mounted = {
        host: registry_of(graph, host).inputs["volumes"][-1]["volumeName"]
        for host in ("docker.io", "quay.io", "ghcr.io")
    }
    assert mounted == {
        "docker.io": "registry-dev-docker.io-credentials",
        "quay.io": "registry-dev-anonymous",
        "ghcr.io": "registry-dev-anonymous",
    }


def test_without_anonymous_upstreams_there_is_no_anonymous_helper() -> None:
    graph = declare(
        {"upstreams": {"docker.io": {"username": "me"}}}, secrets={"passwords": PASSWORD}
    )

    assert graph.names(CREDENTIAL_HELPER) == ["docker.io-credentials", "fronts"]


# Changes


@pytest.mark.parametrize(
    ("caches", "password", "changed"),
    [
        (WITH_USER, "old", set()),
        (WITH_USER, "new", {"docker.io-credentials-writer"}),
        (with_quay(port=5999), "old", {"quay.io-container"}),
        (with_quay(image="registry:3.0.0"), "old", {"quay.io-registry", "registry:3.0.0"}),
        (
            {"upstreams": {"gcr.io": None, **WITH_USER["upstreams"]}},
            "old",
            {"gcr.io", *map("gcr.io-{}".format, ("container", "registry", "storage", "front"))},
        ),
        ({**WITH_USER, "offline": True}, "old", REGISTRIES | OF_USER),
    ],
    ids=["nothing", "password", "port", "image", "added upstream", "offline"],
)
def test_a_change_of_settings_touches_only_its_own_resources(
    caches: Mapping[str, Any], password: str, changed: set[str]
) -> None:
    one, other = (
        declare(written, secrets={"passwords": {"docker.io": said}}).inputs()
        for written, said in ((WITH_USER, "old"), (caches, password))
    )

    assert changed == {
        name
        for kind, name in one.keys() | other.keys()
        if one.get((kind, name)) != other.get((kind, name))
    }


# Addresses


@pytest.mark.parametrize(
    ("caches", "gateway", "addresses"),
    [
        ({}, "10.5.0.1", ["10.5.0.1", "127.0.0.1"]),
        # An engine in a virtual machine.
        ({}, "host.docker.internal", ["127.0.0.1"]),
        ({"mirrorHost": "10.9.0.1"}, GATEWAY, ["10.9.0.1", "127.0.0.1"]),
        ({"mirrorHost": "127.0.0.1"}, GATEWAY, ["127.0.0.1"]),
        ({"publishOn": ["10.9.0.2", "10.9.0.1"]}, GATEWAY, ["10.9.0.1", "10.9.0.2"]),
    ],
)
def test_ports_are_published_on_loopback_and_the_mirror_host_or_as_set(
    caches: dict[str, Any], gateway: str, addresses: list[str]
) -> None:
    graph = declare({**TWO, **caches}, facts=EngineFacts(gateway, {}))

    assert ports_of(graph, "quay.io") == [(address, 5002) for address in addresses]


def test_addresses_come_in_the_order_that_the_engine_has_them_in() -> None:
    facts = EngineFacts(GATEWAY, {"registry-dev-quay.io": [GATEWAY, "127.0.0.1"]})

    graph = declare(TWO, facts=facts)

    assert ports_of(graph, "quay.io") == [(GATEWAY, 5002), ("127.0.0.1", 5002)]
    assert ports_of(graph, "docker.io") == [("127.0.0.1", 5000), (GATEWAY, 5000)]


def published_on(wanted: list[str], published: list[str]) -> Sequence[str]:
    """The addresses declared for a container, given its current ones."""
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
def test_addresses_keep_the_engine_s_order_if_they_are_the_same(
    wanted: list[str], published: list[str], order: list[str]
) -> None:
    assert published_on(wanted, published) == order


# Mistakes found on this machine


MISSING = "192.0.2.1"
NO_BRIDGE = EngineFacts(ENGINE_IN_VM, {}, is_on_this_machine=True)
NO_ADDRESS = replace(NO_BRIDGE, bridge_gateway=MISSING)


@pytest.mark.parametrize(
    ("written", "facts", "mistake"),
    [
        ({}, NO_BRIDGE, "mirrorHost: found auto with an engine which has no default bridge"),
        ({}, NO_ADDRESS, f"mirrorHost: found auto with an engine whose bridge should .* {MISSING}"),
        ({"mirrorHost": MISSING}, NO_BRIDGE, f"mirrorHost: found {MISSING}"),
        (
            {"mirrorHost": "caches.test", "publishOn": ["127.0.0.1", MISSING]},
            NO_BRIDGE,
            f"publishOn: found {MISSING}",
        ),
        ({"mirrorHost": MISSING, "publishOn": ["0.0.0.0"]}, NO_BRIDGE, None),
        ({"mirrorHost": "127.0.0.1"}, NO_BRIDGE, None),
        # An engine in a virtual machine has other addresses.
        ({"publishOn": [MISSING]}, EngineFacts(ENGINE_IN_VM, {}), None),
    ],
)
def test_addresses_that_this_machine_lacks_are_a_mistake(
    written: dict[str, Any], facts: EngineFacts, mistake: str | None
) -> None:
    caches = caches_of(settings.parse("dev", {"caches": {**TWO, **written}}))

    lines = [str(one) for one in registry_cache.mistakes(caches, facts)]

    assert len(lines) == (0 if mistake is None else 1)
    assert mistake is None or re.match(f"{mistake}.*; allowed: an address of this mach", lines[0])


@pytest.mark.parametrize(
    ("written", "is_refused"),
    [
        ({}, True),
        ({"mirrorHost": "10.0.0.9"}, False),
        ({"mirrorHost": "10.0.0.9", "publishOn": ["0.0.0.0"]}, True),
        ({"publishOn": ["127.0.0.1"]}, True),
        ({"via": {"mirrors": {"docker.io": f"http://{GATEWAY}:6000"}}}, False),
    ],
)
def test_an_upstream_at_the_stack_s_own_cache_is_a_mistake(
    written: dict[str, Any], *, is_refused: bool
) -> None:
    via = {"mirrors": {"docker.io": f"http://{GATEWAY}:5002"}}
    caches = caches_of(settings.parse("dev", {"caches": {**TWO, "via": via, **written}}))

    lines = [str(one) for one in registry_cache.mistakes(caches, EngineFacts(GATEWAY, {}))]

    text = f"found http://{GATEWAY}:5002, which is this stack's own cache of quay.io"
    allowed = "the registry's own URL, or another cache's"
    assert lines == is_refused * [f'via.mirrors["docker.io"]: {text}; allowed: {allowed}']


@pytest.mark.parametrize(
    ("written", "paths"),
    [
        ({}, ["mirrorHost"]),
        ({"publishOn": ["10.9.0.1"]}, ["mirrorHost"]),
        ({"mirrorHost": "10.9.0.1"}, ["publishOn"]),
        ({"mirrorHost": "10.9.0.1", "publishOn": ["10.9.0.1", "127.0.0.1"]}, ["publishOn"]),
        ({"mirrorHost": "10.9.0.1", "publishOn": ["10.9.0.1"]}, []),
        ({"mirrorHost": "laptop.lan", "publishOn": ["0.0.0.0"]}, []),
    ],
)
def test_caches_on_a_rootless_engine_need_one_address_of_this_machine(
    written: dict[str, Any], paths: list[str]
) -> None:
    facts = EngineFacts("host.docker.internal", {}, is_rootless=True)

    found = list(registry_cache.mistakes(parsed_caches({**TWO, **written}), facts))

    assert [str(mistake).partition(": ")[0] for mistake in found] == paths
    assert all("mirrorHost and publishOn" in mistake.text for mistake in found)
