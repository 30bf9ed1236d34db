"""A cache with a front: nginx has the name and the port, the registry only a socket."""

from typing import Any

import pytest

from components import front
from components.engine import EngineFacts
from components.registry_cache import RegistryCache
from components.registry_cache_args import ArgumentsError, RegistryCacheArgs
from tests.unit.components import stack_graph
from tests.unit.components.certificates import authority
from tests.unit.components.declared_caches import GATEWAY, declare, engine_with, files
from tests.unit.components.stack_graph import CONTAINER, VOLUME, Declared, Graph

NAME = "registry-dev-quay.io"
TLS = {
    "tls": {"kind": "given", "certificate": authority("given").certificate},
    "secrets": {"tlsKey": authority("given").key},
}


def quay(secrets: Any = None, **caches: Any) -> Graph:
    """A stack with a cache of quay.io."""
    return declare({"upstreams": {"quay.io": None}, **caches}, secrets=secrets)


def both(graph: Graph) -> tuple[Declared, Declared]:
    """The front and the registry."""
    return graph.one(CONTAINER, "quay.io-container"), graph.one(CONTAINER, "quay.io-registry")


def labels(declared: Declared) -> dict[str, str]:
    return {one["label"]: one["value"] for one in declared.inputs["labels"]}


def mounts(declared: Declared) -> dict[str, tuple[str, bool]]:
    """The volume at each folder, and whether it is read-only."""
    return {
        one["containerPath"]: (one["volumeName"], one.get("readOnly", False))
        for one in declared.inputs["volumes"]
    }


def front_files(graph: Graph) -> dict[str, str]:
    uploads = graph.one(CONTAINER, "fronts-writer").inputs["uploads"]
    return {one["file"].removeprefix("/credentials/"): one["content"] for one in uploads}


def test_the_front_has_the_name_and_the_port_of_the_cache_and_the_registry_has_no_port() -> None:
    graph = quay()
    before, registry = both(graph)

    assert (before.inputs["name"], registry.inputs["name"]) == (NAME, f"{NAME}-registry")
    assert {port["external"] for port in before.inputs["ports"]} == {5002}
    assert "ports" not in registry.inputs
    assert f"REGISTRY_HTTP_ADDR={front.SOCKET}" in registry.inputs["envs"]
    assert graph.outputs["caches"]["quay.io"]["name"] == NAME
    assert graph.outputs["caches"]["quay.io"]["endpoint"] == "http://127.0.0.1:5002"


def test_a_front_comes_after_its_registry_for_which_it_waits() -> None:
    before, _ = both(quay())

    assert "quay.io-registry" in before.depends_on


def test_only_the_registry_sees_the_credentials_of_its_upstream() -> None:
    before, registry = both(quay())

    assert mounts(before) == {
        front.SHARED_FOLDER: (f"{NAME}-front", False),
        "/var/lib/registry": (NAME, False),
        "/credentials": ("registry-dev-fronts", True),
    }
    assert mounts(registry) == {
        "/var/lib/registry": (NAME, False),
        front.SHARED_FOLDER: (f"{NAME}-front", False),
        "/credentials": ("registry-dev-anonymous", True),
    }


def test_the_shared_volume_is_deleted_with_the_stack_and_the_images_are_kept() -> None:
    graph = quay()

    assert not graph.one(VOLUME, "quay.io-front").retain_on_delete
    assert graph.one(VOLUME, "quay.io-storage").retain_on_delete


def test_both_run_without_root_and_capabilities_on_a_read_only_root() -> None:
    for one in both(quay()):
        assert one.inputs["user"] == "65532:65532"
        assert one.inputs["readOnly"] is True
        assert one.inputs["capabilities"] == {"drops": ["ALL"]}
        assert one.inputs["securityOpts"] == ["no-new-privileges"]


def test_cachectl_finds_the_registry_by_a_label_of_the_front() -> None:
    before, registry = both(quay())

    assert labels(before)["talos-registry-cache.registry"] == registry.inputs["name"]
    assert labels(before)["talos-registry-cache.mirror"] == "http://172.17.0.1:5002"
    assert "talos-registry-cache.registry" not in labels(registry)


def test_with_tls_the_front_has_the_key_and_the_registry_has_not() -> None:
    graph = quay(**TLS)
    registry = graph.one(CONTAINER, "anonymous-writer")

    assert front_files(graph).keys() == {"nginx.conf", "server.pem"}
    assert [one["file"] for one in registry.inputs["uploads"]] == ["/credentials/helper"]
    assert not [one for one in both(graph)[1].inputs["envs"] if "TLS" in one]
    assert graph.outputs["caches"]["quay.io"]["endpoint"] == "https://127.0.0.1:5002"


def test_the_registry_checks_passwords_and_the_front_asks_it() -> None:
    graph = quay(**{**TLS, "secrets": {**TLS["secrets"], "readers": {"nodes": "a-password"}}})

    assert "REGISTRY_AUTH=htpasswd" in both(graph)[1].inputs["envs"]
    assert "auth_request" in front_files(graph)["nginx.conf"]
    assert "auth_request" not in front_files(quay())["nginx.conf"]


def test_a_changed_configuration_replaces_the_front_only() -> None:
    (before, registry), (changed, same) = both(quay()), both(quay(front={"tagFreshness": "5m"}))

    assert labels(before) != labels(changed)
    assert labels(registry) == labels(same)


@pytest.mark.parametrize(
    ("freshness", "rendered"),
    [("1m", "proxy_cache_valid 200 60s"), ("1500ms", "proxy_cache_valid 200 2s")],
)
def test_tags_are_fresh_for_whole_seconds(freshness: str, rendered: str) -> None:
    assert rendered in front_files(quay(front={"tagFreshness": freshness}))["nginx.conf"]


def test_without_freshness_the_registry_is_asked_for_each_tag() -> None:
    assert "proxy_cache tags" in front.configuration(tls=False, readers=False, tag_freshness_s=1)
    assert "proxy_cache tags" not in front.configuration(
        tls=False, readers=False, tag_freshness_s=0
    )


# Pinned tags

DIGEST = f"sha256:{'a' * 64}"


def declare_pinned(*pinned: str, **caches: Any) -> Graph:
    """Declare caches of two registries with pinned images."""
    written: Any = {
        "upstreams": {"quay.io": None, "ghcr.io": None},
        "pinned_images": pinned,
        **caches,
    }

    def program() -> None:
        RegistryCache("caches", RegistryCacheArgs(**written))

    with engine_with(EngineFacts(GATEWAY, {})):
        return stack_graph.run(program)


def test_pinned_tags_are_in_the_files_of_the_front_of_their_registry_alone() -> None:
    graph = declare_pinned(f"quay.io/team/app:1.0@{DIGEST}")

    pinned = files(graph, "quay.io-front-files")[front.CONFIGURATION_FILE]
    assert rf"~^/v2/team/app/manifests/1\.0$ {DIGEST};" in pinned
    assert "$pinned" not in front_files(graph)[front.CONFIGURATION_FILE]
    volumes = {
        host: mounts(graph.one(CONTAINER, f"{host}-container"))["/credentials"][0]
        for host in ("quay.io", "ghcr.io")
    }
    assert volumes == {
        "quay.io": "registry-dev-quay.io-front-files",
        "ghcr.io": "registry-dev-fronts",
    }


@pytest.mark.parametrize(
    ("image", "mistake"),
    [
        ("quay.io/team/app:1", "allowed: an image with tag and digest"),
        (f"quay.io/team/app@{DIGEST}", "allowed: an image with tag and digest"),
        (f"gcr.io/team/app:1@{DIGEST}", "there is no cache for gcr.io; allowed: quay.io, ghcr.io"),
    ],
)
def test_an_image_that_cannot_be_pinned_is_refused(image: str, mistake: str) -> None:
    with pytest.raises(ArgumentsError, match=mistake):
        declare_pinned(image)
