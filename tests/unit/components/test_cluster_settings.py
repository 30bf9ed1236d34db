import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components import settings
from components.settings import Cluster, SettingsError, StackSettings
from tests.unit.components import stack_graph

CACHES = {"upstreams": {"docker.io": None, "quay.io": None}}


def parse(clusters: Any, **rest: Any) -> StackSettings:
    return settings.parse("dev", caches=rest.pop("caches", None), clusters=clusters, **rest)


def one(**written: Any) -> Cluster:
    """The settings of a cluster, right as they are written."""
    return parse({"demo": written}).clusters["demo"]


def mistakes(clusters: Any, **rest: Any) -> list[str]:
    with pytest.raises(SettingsError) as refused:
        parse(clusters, **rest)
    head, *lines = str(refused.value).splitlines()
    assert head == "Pulumi.dev.yaml has mistakes, nothing was changed:"
    return [line.removeprefix("  ") for line in lines]


def mistake(clusters: Any, **rest: Any) -> str:
    (only,) = mistakes(clusters, **rest)
    return only


# What is left out


@pytest.mark.parametrize("written", [None, {}])
def test_a_cluster_needs_no_more_than_its_name(written: Any) -> None:
    demo = parse({"demo": written}).clusters["demo"]

    assert demo == Cluster()
    assert (demo.provisioner, demo.talosctl, demo.cidr) == ("docker", "talosctl", "10.5.0.0/24")
    assert (demo.mirror_host, demo.timeout) == ("auto", "20m")
    assert (demo.skip_fallback, demo.merge_kubeconfig) == (False, False)
    assert demo.on_lost_nodes == "keep", "what is replaced is lost"


def test_what_is_left_out_is_left_to_talosctl() -> None:
    demo = one()

    for key in ("controlplanes", "workers", "cpus", "memory", "talos_version", "image"):
        assert getattr(demo, key) is None


def test_the_order_of_clusters_is_as_written() -> None:
    networks = {"zoo": {"cidr": "10.6.0.0/24"}, "ark": {"cidr": "10.7.0.0/24"}}

    assert list(parse(networks).clusters) == ["zoo", "ark"]


# Which keys a stack has


def test_a_stack_may_have_clusters_and_no_caches() -> None:
    parsed = parse({"demo": None})

    assert parsed.caches is None
    assert parsed.mirrors_from is None


def test_a_stack_may_have_caches_and_clusters() -> None:
    parsed = parse({"demo": None}, caches=CACHES)

    assert parsed.caches is not None
    assert list(parsed.clusters) == ["demo"]


@pytest.mark.parametrize("nothing", [None, {}, ""])
def test_a_stack_without_clusters_has_caches(nothing: Any) -> None:
    assert mistake(nothing).startswith("caches.upstreams: found none")


def test_clusters_may_use_the_caches_of_another_stack() -> None:
    assert parse({"demo": None}, mirrors_from="dev").mirrors_from == "dev"


def test_mirrors_are_those_of_one_stack() -> None:
    assert mistake({"demo": None}, caches=CACHES, mirrors_from="other") == (
        "mirrorsFrom: found beside caches; "
        "allowed: one of both, mirrors of its own or another stack's"
    )


def test_mirrors_of_another_stack_alone_are_no_stack_and_no_caches_are_made_up() -> None:
    assert mistake(None, mirrors_from="other").startswith("caches.upstreams: found none")


@pytest.mark.parametrize("name", ["a b", "org/dev", "../dev", "-dev"])
def test_the_other_stack_is_named_as_stacks_are(name: str) -> None:
    assert mistake({"demo": None}, mirrors_from=name) == (
        f"mirrorsFrom: found {name!r}; allowed: letters, digits, dots, dashes and underscores, "
        "up to 128, a letter or digit first"
    )


@pytest.mark.parametrize("found", [5, [], {"dev": {}}, True])
def test_the_other_stack_is_a_text(found: Any) -> None:
    (line,) = mistakes({"demo": None}, mirrors_from=found)

    assert line == f"mirrorsFrom: found {found!r}; allowed: a text"


def test_the_keys_are_read_from_the_stack_file() -> None:
    loaded: list[StackSettings] = []
    stack_graph.run(
        lambda: loaded.append(settings.load()),
        config={
            "talos-registry-cache:clusters": json.dumps({"demo": {"workers": 2}}),
            "talos-registry-cache:mirrorsFrom": "dev",
        },
    )

    assert loaded[0].clusters == {"demo": Cluster(workers=2)}
    assert loaded[0].mirrors_from == "dev"


# Names


@pytest.mark.parametrize("name", ["a", "7", "demo-1", "a" * 40])
def test_a_name_fits_into_host_names(name: str) -> None:
    assert list(parse({name: None}).clusters) == [name]


@pytest.mark.parametrize("name", ["Demo", "-a", "a-", "a_b", "a.b", "a/b", "", "a" * 41])
def test_a_name_that_does_not_is_refused(name: str) -> None:
    line = mistake({name: None})

    assert line.endswith(
        f"found {name!r}; allowed: up to 40 small letters, digits and dashes, at neither end a dash"
    )


# Networks


def test_clusters_have_networks_of_their_own() -> None:
    line = mistake({"first": {"cidr": "10.6.0.0/16"}, "second": {"cidr": "10.6.7.0/24"}})

    assert line == (
        "clusters.second.cidr: found 10.6.7.0/24, which overlaps 10.6.0.0/16 of first; "
        "allowed: a network of its own, such as 10.6.0.0/24"
    )


def test_the_default_network_is_there_for_one_cluster() -> None:
    (line,) = mistakes({"first": None, "second": {}, "third": {"cidr": "10.6.0.0/24"}})

    assert line.startswith("clusters.second.cidr: found 10.5.0.0/24, which overlaps 10.5.0.0/24 of")


def test_every_pair_of_clusters_is_compared() -> None:
    lines = mistakes({"a": None, "b": {"cidr": "10.6.0.0/24"}, "c": {"cidr": "10.0.0.0/8"}})

    assert [line.partition("; ")[0] for line in lines] == [
        "clusters.c.cidr: found 10.0.0.0/8, which overlaps 10.5.0.0/24 of a",
        "clusters.c.cidr: found 10.0.0.0/8, which overlaps 10.6.0.0/24 of b",
    ]


def test_neighbouring_networks_do_not_overlap() -> None:
    parsed = parse({"a": {"cidr": "10.5.0.0/25"}, "b": {"cidr": "10.5.0.128/25"}})

    assert [cluster.cidr for cluster in parsed.clusters.values()] == [
        "10.5.0.0/25",
        "10.5.0.128/25",
    ]


@pytest.mark.parametrize("cidr", [5, True])
def test_a_number_is_no_network_and_overlaps_none(cidr: Any) -> None:
    assert mistakes({"a": {"cidr": cidr}, "b": {"cidr": cidr}}) == [
        f"clusters.a.cidr: found {cidr}; allowed: a text",
        f"clusters.b.cidr: found {cidr}; allowed: a text",
    ]


@pytest.mark.parametrize(
    ("cidr", "why"),
    [
        ("10.5.0.1/24", "allowed: an IPv4 network as it is written, such as 10.5.0.0/24"),
        ("10.5.0.0/33", "allowed: an IPv4 network such as 10.5.0.0/24"),
        ("fd00::/64", "allowed: an IPv4 network such as 10.5.0.0/24"),
        ("10.5.0.0/30", "room for nodes: /29 or wider"),
        ("10.5.0.0", "room for nodes: /29 or wider"),
    ],
)
def test_what_is_no_network_for_nodes_is_refused(cidr: str, why: str) -> None:
    line = mistake({"demo": {"cidr": cidr}})

    assert line.startswith(f"clusters.demo.cidr: found {cidr!r}; ")
    assert why in line


# Mirrors


def test_a_mirror_that_is_left_out_is_one_of_the_stack() -> None:
    parsed = parse({"demo": {"mirrors": {"quay.io": False}}}, caches=CACHES)
    assert parsed.clusters["demo"].mirrors == {"quay.io": False}

    assert mistake({"demo": {"mirrors": {"ghcr.io": False}}}, caches=CACHES) == (
        'clusters.demo.mirrors["ghcr.io"]: found, but this stack has no cache of it; '
        "allowed: docker.io, quay.io"
    )


def test_which_mirrors_another_stack_has_is_not_known_here() -> None:
    parsed = parse({"demo": {"mirrors": {"ghcr.io": False}}}, mirrors_from="other")

    assert parsed.clusters["demo"].mirrors == {"ghcr.io": False}


@pytest.mark.parametrize("found", [5, ["ghcr.io"], "ghcr.io"])
def test_mirrors_that_are_no_mapping_are_one_mistake(found: Any) -> None:
    assert mistake({"demo": {"mirrors": found}}, caches=CACHES) == (
        f"clusters.demo.mirrors: found {found!r}; allowed: a mapping"
    )


@pytest.mark.parametrize("host", ["auto", "10.5.0.1", "host.docker.internal"])
def test_a_mirror_host_is_an_address_or_a_name(host: str) -> None:
    assert one(mirrorHost=host).mirror_host == host


@pytest.mark.parametrize("host", ["", "http://10.5.0.1", "10.5.0.1:5000", "a b"])
def test_what_is_no_mirror_host_is_refused(host: str) -> None:
    assert mistake({"demo": {"mirrorHost": host}}).startswith(
        f"clusters.demo.mirrorHost: found {host!r}; allowed: auto, an IPv4 address, or a host name"
    )


# Patches


@pytest.mark.parametrize(
    ("key", "attribute"),
    [
        ("configPatches", "config_patches"),
        ("configPatchesControlplanes", "config_patches_controlplanes"),
        ("configPatchesWorkers", "config_patches_workers"),
    ],
)
def test_a_patch_is_a_mapping_or_a_text(key: str, attribute: str) -> None:
    patches = [{"machine": {"sysctls": {"a": "1"}}}, "machine: {}", {}]

    assert getattr(one(**{key: patches}), attribute) == patches


@pytest.mark.parametrize("key", ["configPatches", "configPatchesWorkers"])
@pytest.mark.parametrize("patch", [5, "", None, True, [{"op": "add"}]])
def test_what_is_no_patch_is_one_mistake_at_its_place_in_the_list(key: str, patch: Any) -> None:
    assert mistake({"demo": {key: [{"machine": {}}, patch]}}) == (
        f"clusters.demo.{key}[1]: found {patch!r}; allowed: a mapping, or a text that is not empty"
    )


# One key at a time


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("provisioner", "vbox", "'docker', 'qemu' or 'firecracker'"),
        ("talosctl", "", "a text that is not empty"),
        ("controlplanes", 0, "greater than or equal to 1"),
        ("controlplanes", "1", "a whole number"),
        ("workers", -1, "greater than or equal to 0"),
        ("workers", 1.5, "a whole number"),
        ("workers", True, "a whole number"),
        ("cpus", 0, "greater than or equal to 0.01"),
        ("cpus", float("inf"), "a finite number"),
        ("cpus", float("nan"), "a finite number"),
        ("memory", "2x", "a number with k, m or g, such as 10m"),
        ("talosVersion", "latest", "a version such as v1.11.5"),
        ("kubernetesVersion", "1.34", "a version such as v1.11.5"),
        ("kubernetesVersion", 1.34, "a text"),
        ("image", "A b", "an image reference such as registry:3.1.2"),
        ("disks", "virtio:10GiB", "a list"),
        ("mirrors", ["docker.io"], "a mapping"),
        ("skipFallback", "yes", "true or false"),
        ("mergeKubeconfig", 1, "true or false"),
        ("onLostNodes", "start", "'keep' or 'replace'"),
        ("extraArguments", "--debug", "a list"),
        ("timeout", "20 minutes", "a duration such as 20m"),
        ("timeout", 20, "a text"),
    ],
)
def test_what_does_not_fit_is_refused(key: str, value: Any, allowed: str) -> None:
    assert mistake({"demo": {key: value}}) == (
        f"clusters.demo.{key}: found {value!r}; allowed: {allowed}"
    )


@pytest.mark.parametrize(
    ("written", "line"),
    [
        ({"disks": [""]}, "disks[0]: found ''; allowed: a text that is not empty"),
        ({"extraArguments": ["--a", 1]}, "extraArguments[1]: found 1; allowed: a text"),
        ({"mirrors": {"docker.io": "no way"}}, "mirrors[\"docker.io\"]: found 'no way'; allowed: "),
        ({"mirrors": {"a b": False}}, "mirrors[\"a b\"]: found 'a b'; allowed: a registry host"),
    ],
)
def test_a_mistake_within_a_value_is_told_with_its_place(
    written: dict[str, Any], line: str
) -> None:
    assert mistake({"demo": written}).startswith(f"clusters.demo.{line}")


@pytest.mark.parametrize("image", ["ghcr.io/siderolabs/talos:v1.11.5", f"a/b@sha256:{'0' * 64}"])
def test_an_image_has_a_tag_or_a_digest(image: str) -> None:
    assert one(image=image).image == image


def test_there_may_be_no_workers() -> None:
    assert one(workers=0).workers == 0


def test_an_unknown_key_is_refused_with_the_one_that_was_meant() -> None:
    line = mistake({"demo": {"wokers": 2}})

    assert line.startswith(
        "clusters.demo.wokers: found an unknown key (did you mean workers?); allowed: "
    )
    assert "provisioner, talosctl, controlplanes, workers, cpus, memory, cidr" in line


@pytest.mark.parametrize(
    ("clusters", "line"),
    [
        (5, "clusters: found 5; allowed: a mapping"),
        ([], "clusters: found []; allowed: a mapping"),
        ("demo", "clusters: found 'demo'; allowed: a mapping"),
        ({"demo": 5}, "clusters.demo: found 5; allowed: a mapping"),
        ({"demo": []}, "clusters.demo: found []; allowed: a mapping"),
    ],
)
def test_what_is_no_mapping_is_refused_where_one_belongs(clusters: Any, line: str) -> None:
    assert mistake(clusters) == line


def test_mistakes_in_caches_and_clusters_are_told_at_once() -> None:
    lines = mistakes(
        {"a": {"workers": -1}, "b": {"mirrors": {"ghcr.io": False}}},
        caches={"upstreams": {"docker.io": None}, "ttl": "5 days"},
        mirrors_from="other",
    )

    assert [line.partition(": ")[0] for line in lines] == [
        "caches.ttl",
        "clusters.a.workers",
        "clusters.b.cidr",
        "mirrorsFrom",
        'clusters.b.mirrors["ghcr.io"]',
    ]


# In general

JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from([str(field.alias) for field in Cluster.model_fields.values()])
            | st.text(max_size=8),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(clusters=JUNK | st.dictionaries(st.text(max_size=4), JUNK, max_size=3), mirrors_from=JUNK)
def test_whatever_is_written_there_are_settings_or_a_settings_error(
    clusters: Any, mirrors_from: Any
) -> None:
    try:
        parsed = parse(clusters, mirrors_from=mirrors_from)
    except SettingsError as error:
        assert len(str(error).splitlines()) > 1  # noqa: PT017 - not each example is refused
    else:
        assert list(parsed.clusters) == list(clusters)
