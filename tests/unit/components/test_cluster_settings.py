"""The settings below the keys `clusters` and `mirrorsFrom`."""

from typing import Any

import pytest
import yaml

from components import settings
from components.settings import Cluster, StackSettings
from tests.unit.components.parsed_settings import assert_refused, mistakes

CACHES = {"upstreams": {"docker.io": None, "quay.io": None}}


def parse(clusters: Any, **rest: Any) -> StackSettings:
    return settings.parse("dev", {"clusters": clusters, **rest})


def one(**written: Any) -> Cluster:
    """The settings of a cluster, right as they are written."""
    return parse({"demo": written}).clusters["demo"]


# Defaults


@pytest.mark.parametrize("written", [None, {}])
def test_a_cluster_needs_only_its_name(written: Any) -> None:
    demo = parse({"demo": written}).clusters["demo"]

    assert demo == Cluster()
    assert (demo.provisioner, demo.talosctl, demo.cidr) == ("docker", "talosctl", "10.5.0.0/24")
    assert (demo.mirror_host, demo.timeout) == ("auto", "20m")
    assert (demo.skip_fallback, demo.merge_kubeconfig) == (False, False)
    assert demo.on_lost_nodes == "keep"
    for left_to_talosctl in (
        "controlplanes", "workers", "cpus", "memory", "talos_version", "image",
    ):  # fmt: skip
        assert getattr(demo, left_to_talosctl) is None


def test_clusters_keep_their_order() -> None:
    networks = {"zoo": {"cidr": "10.6.0.0/24"}, "ark": {"cidr": "10.7.0.0/24"}}

    assert list(parse(networks).clusters) == ["zoo", "ark"]


# The keys of a stack


def test_a_stack_may_have_clusters_without_caches() -> None:
    parsed = parse({"demo": None})

    assert parsed.caches is None
    assert parsed.mirrors_from is None


def test_a_stack_may_have_caches_and_clusters() -> None:
    parsed = parse({"demo": None}, caches=CACHES)

    assert parsed.caches is not None
    assert list(parsed.clusters) == ["demo"]


def test_clusters_may_use_the_caches_of_another_stack() -> None:
    parsed = parse({"demo": {"mirrors": {"ghcr.io": False}}}, mirrorsFrom="dev")

    assert parsed.mirrors_from == "dev"
    assert parsed.clusters["demo"].mirrors == {"ghcr.io": False}


@pytest.mark.parametrize(
    ("written", "path", "kind"),
    [
        ("clusters: ", "caches.upstreams", "found none"),
        ("clusters: {}", "caches.upstreams", "found none"),
        ("mirrorsFrom: other", "caches.upstreams", "found none"),
        (
            "{clusters: {demo: }, caches: {upstreams: {docker.io: }}, mirrorsFrom: other}",
            "mirrorsFrom",
            "found beside caches",
        ),
        *(
            (f"{{clusters: {{demo: }}, mirrorsFrom: {name}}}", "mirrorsFrom", f"found {found}; ")
            for name, found in (
                ("a b", "'a b'"), ("org/dev", "'org/dev'"), ("-dev", "'-dev'"), ("5", "5"),
                ("[dev]", "['dev']"), ("true", "True"),
            )
        ),
    ],
)  # fmt: skip
def test_keys_that_do_not_fit_together_are_refused(written: str, path: str, kind: str) -> None:
    assert_refused(yaml.safe_load(written), path, kind)


# Names


@pytest.mark.parametrize("name", ["a", "7", "demo-1", "a" * 40])
def test_a_name_is_part_of_host_names(name: str) -> None:
    assert list(parse({name: None}).clusters) == [name]


@pytest.mark.parametrize("name", ["Demo", "-a", "a-", "a_b", "a.b", "a/b", "", "a" * 41])
def test_another_name_is_refused(name: str) -> None:
    ((path, text),) = mistakes({"clusters": {name: None}})

    assert path.startswith("clusters")
    assert text == (
        f"found {name!r}; allowed: "
        "up to 40 lowercase letters, digits and dashes, without a dash at either end"
    )


# Networks


@pytest.mark.parametrize(
    ("clusters", "found"),
    [
        (
            "{first: {cidr: 10.6.0.0/16}, second: {cidr: 10.6.7.0/24}}",
            {"second": "found 10.6.7.0/24, which overlaps 10.6.0.0/16 of first"},
        ),
        (
            "{first: , second: {}, third: {cidr: 10.6.0.0/24}}",
            {"second": "found 10.5.0.0/24, which overlaps 10.5.0.0/24 of first"},
        ),
        (
            "{a: , b: {cidr: 10.6.0.0/24}, c: {cidr: 10.0.0.0/9}}",
            {"c": "found 10.0.0.0/9, which overlaps 10.6.0.0/24 of b"},
        ),
        ("{a: {cidr: 10.5.0.0/25}, b: {cidr: 10.5.0.128/25}}", {}),
        # A wrong network overlaps none.
        ("{a: {cidr: 5}, b: {cidr: 5}}", {"a": "a text", "b": "a text"}),
        ("{a: {cidr: 10.5.0.1/24}, b: , c: {workers: -1}}", {"a": "", "c": "overlaps"}),
    ],
)
def test_clusters_have_networks_of_their_own(clusters: str, found: dict[str, str]) -> None:
    refused = dict(mistakes({"clusters": yaml.safe_load(clusters)}))

    assert {path.removesuffix(".cidr") for path in refused if path.endswith(".cidr")} == {
        f"clusters.{name}" for name in found
    }
    for name, text in found.items():
        assert text in refused[f"clusters.{name}.cidr"]


# One key at a time


@pytest.mark.parametrize(
    "written",
    [
        {"workers": 0},
        {"controlplanes": 1000},
        {"cpus": 0.01},
        {"memory": "256m"},
        {"image": "ghcr.io/siderolabs/talos:v1.11.5"},
        {"image": f"a/b@sha256:{'0' * 64}"},
        {"mirrorHost": "10.5.0.1"},
        {"mirrorHost": "host.docker.internal"},
        {"configPatches": [{"machine": {"sysctls": {"a": "1"}}}, "machine: {}", {}]},
        {"configPatchesControlplanes": ["- op: add\n  path: /a\n  value: 1\n"]},
        {"configPatchesWorkers": ["a: 1\n---\nb: 2\n"]},
        {"timeout": "168h"},
        {"cidr": "10.5.0.0/29"},
    ],
)
def test_a_right_value_is_kept_as_it_is_written(written: dict[str, Any]) -> None:
    dumped = one(**written).model_dump(by_alias=True)

    assert {key: dumped[key] for key in written} == written


PATCH = "a mapping, or non-empty YAML text"
NO_NETWORK = "an IPv4 network such as 10.5.0.0/24"


@pytest.mark.parametrize(
    ("written", "path", "kind"),
    [
        ("provisioner: vbox", "provisioner", "'docker', 'qemu' or 'firecracker'"),
        ("talosctl: ''", "talosctl", "found ''; allowed: non-empty text"),
        ("controlplanes: 0", "controlplanes", "greater than or equal to 1"),
        ("controlplanes: 1001", "controlplanes", "less than or equal to 1000"),
        ("controlplanes: '1'", "controlplanes", "a whole number"),
        ("workers: -1", "workers", "greater than or equal to 0"),
        ("workers: 1.5", "workers", "a whole number"),
        ("workers: true", "workers", "a whole number"),
        ("cpus: 0", "cpus", "greater than or equal to 0.01"),
        ("cpus: 1025", "cpus", "less than or equal to 1024"),
        ("cpus: .inf", "cpus", "a finite number"),
        ("cpus: .nan", "cpus", "a finite number"),
        ("memory: 2x", "memory", "a number with k, m or g, such as 10m"),
        ("memory: 255m", "memory", "from 256m to 1024g"),
        ("talosVersion: latest", "talosVersion", "a version such as v1.11.5"),
        ("kubernetesVersion: '1.34'", "kubernetesVersion", "a version such as v1.11.5"),
        ("kubernetesVersion: 1.34", "kubernetesVersion", "a text"),
        ("image: A b", "image", "an image reference such as registry:3.1.2"),
        ("disks: virtio:10GiB", "disks", "a list"),
        ("disks: ['']", "disks[0]", "non-empty text"),
        ("mirrors: [docker.io]", "mirrors", "a mapping"),
        ("mirrors: {docker.io: no way}", 'mirrors["docker.io"]', "true or false"),
        ("mirrors: {a b: false}", 'mirrors["a b"]', "a registry host"),
        ("mirrors: {ghcr.io: false}", 'mirrors["ghcr.io"]', "cache it; allowed: docker.io, quay"),
        ("mirrorHost: ''", "mirrorHost", "auto, an IPv4 address, or a host name"),
        ("mirrorHost: 10.5.0.1:5000", "mirrorHost", "auto, an IPv4 address, or a host name"),
        ("skipFallback: 'yes'", "skipFallback", "true or false"),
        ("mergeKubeconfig: 1", "mergeKubeconfig", "true or false"),
        ("onLostNodes: start", "onLostNodes", "'keep' or 'replace'"),
        ("extraArguments: --debug", "extraArguments", "a list"),
        ("extraArguments: [--a, 1]", "extraArguments[1]", "a text"),
        ('extraArguments: ["a\\0"]', "extraArguments[0]", "tabs and line breaks"),
        ("timeout: 20 minutes", "timeout", "a duration such as 20m"),
        ("timeout: 20", "timeout", "a text"),
        ("timeout: 999ms", "timeout", "from 1s to 168h"),
        ("timeout: 169h", "timeout", "from 1s to 168h"),
        ("cidr: 10.5.0.1/24", "cidr", "without host bits, such as 10.5.0.0/24"),
        ("cidr: 10.5.0.0/33", "cidr", NO_NETWORK),
        ("cidr: fd00::/64", "cidr", NO_NETWORK),
        ("cidr: 10.5.0.0/30", "cidr", "a network of /29 or larger"),
        ("cidr: 10.5.0.0", "cidr", "a network of /29 or larger"),
        *(
            (f"cidr: {network}", "cidr", "a unicast network")
            for network in ("127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/24", "0.0.0.0/8")
        ),
        *(
            ({key: [{"machine": {}}, patch]}, f"{key}[1]", f"found {patch!r}; allowed: {PATCH}")
            for key in ("configPatches", "configPatchesWorkers")
            for patch in (5, "", None, True, [{"op": "add"}])
        ),
        ("configPatches: ['a: b: c']", "configPatches[0]", "a mapping, or valid YAML text"),
        ("configPatches: [text]", "configPatches[0]", "or a list of JSON patches"),
        ("wokers: 2", "wokers", "found an unknown key (did you mean workers?); allowed: provis"),
    ],
)
def test_a_wrong_value_is_refused_at_its_place(written: Any, path: str, kind: str) -> None:
    demo = yaml.safe_load(written) if isinstance(written, str) else written

    assert_refused({"caches": CACHES, "clusters": {"demo": demo}}, f"clusters.demo.{path}", kind)


@pytest.mark.parametrize(
    ("clusters", "path"),
    [(5, "clusters"), ([], "clusters"), ("demo", "clusters"), ({"demo": []}, "clusters.demo")],
)
def test_a_mapping_is_wanted_where_one_belongs(clusters: Any, path: str) -> None:
    assert_refused({"clusters": clusters}, path, "allowed: a mapping")
