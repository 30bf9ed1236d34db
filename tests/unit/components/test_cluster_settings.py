"""The settings below the keys `clusters` and `mirrorsFrom`."""

import math
from collections.abc import Mapping
from typing import Any

import pytest
import yaml

from components import settings
from components.settings import Cluster, StackSettings
from tests.unit.components.parsed_settings import assert_refused, assert_wrong, each, mistakes

CACHES = {"upstreams": {"docker.io": None, "quay.io": None}}


def parse(clusters: Any, **rest: Any) -> StackSettings:
    return settings.parse("dev", {"clusters": clusters, **rest})


def one(**written: Any) -> Cluster:
    """The settings of a valid cluster."""
    return parse({"demo": written}).clusters["demo"]


# Defaults


@pytest.mark.parametrize("written", [None, {}])
def test_a_cluster_needs_only_its_name(written: Any) -> None:
    demo = parse({"demo": written}).clusters["demo"]

    assert demo == Cluster()
    assert (demo.provisioner, demo.cidr, demo.on_lost_nodes) == ("docker", "10.5.0.0/24", "keep")
    assert (demo.skip_fallback, demo.merge_kubeconfig) == (False, False)


# Keys of the stack file


def test_clusters_may_use_the_caches_of_another_stack() -> None:
    assert parse({"demo": None}).mirrors_from is None
    assert list(parse({"demo": None}, caches=CACHES).clusters) == ["demo"]

    parsed = parse({"demo": {"mirrors": {"ghcr.io": False}}}, mirrorsFrom="dev")
    assert parsed.caches is None
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
def test_contradicting_keys_are_refused(written: str, path: str, kind: str) -> None:
    assert_refused(yaml.safe_load(written), path, kind)


# Names


@pytest.mark.parametrize(
    ("name", "is_valid"),
    [
        *((name, True) for name in ("a", "7", "demo-1", "a" * 40)),
        *((name, False) for name in ("Demo", "-a", "a-", "a_b", "a.b", "a/b", "", "a" * 41)),
    ],
)
def test_names_are_dns_labels_of_up_to_40_characters(name: str, *, is_valid: bool) -> None:
    allowed = "up to 40 lowercase letters, digits and dashes, without a dash at either end"

    texts = [text for _, text in mistakes({"clusters": {name: None}})]
    assert texts == (not is_valid) * [f"found {name!r}; allowed: {allowed}"]


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
        # An invalid network overlaps none.
        ("{a: {cidr: 5}, b: {cidr: 5}}", {"a": "a text", "b": "a text"}),
        ("{a: {cidr: 10.5.0.1/24}, b: , c: {workers: -1}}", {"a": "", "c": "overlaps"}),
    ],
)
def test_networks_of_clusters_must_not_overlap(clusters: str, found: dict[str, str]) -> None:
    refused = dict(mistakes({"clusters": yaml.safe_load(clusters)}))

    assert {path.removesuffix(".cidr") for path in refused if path.endswith(".cidr")} == {
        f"clusters.{name}" for name in found
    }
    for name, text in found.items():
        assert text in refused[f"clusters.{name}.cidr"]


# Values


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
def test_valid_values_are_kept_as_written(written: dict[str, Any]) -> None:
    dumped = one(**written).model_dump(by_alias=True)

    assert {key: dumped[key] for key in written} == written


DEMO = {
    "caches": CACHES,
    "clusters": {
        "demo": {
            "configPatches": [{}],
            "configPatchesWorkers": [{}],
            "disks": ["a"],
            "extraArguments": ["a"],
        }
    },
}
PATCHES = [5, "", None, True, [{"op": "add"}]]
A_PATCH = "a mapping, or non-empty YAML text"
A_HOST = "auto, an IPv4 address, or a host name"


@pytest.mark.parametrize(
    ("base", "path", "value", "kind"),
    each(
        DEMO,
        [
            ("clusters", [5, ["a"], "demo"], "a mapping"),
            ("clusters demo", [5, [], "demo"], "a mapping"),
            ("clusters demo wokers", [2], "unknown key (did you mean workers?); allowed: provisio"),
            ("clusters demo provisioner", ["vbox"], "'docker', 'qemu' or 'firecracker'"),
            ("clusters demo talosctl", [""], "non-empty text"),
            ("clusters demo talosctl", [" a", "a" * 4096], "up to 4095 printable characters"),
            ("clusters demo controlplanes", [0], "greater than or equal to 1"),
            ("clusters demo controlplanes", [1001], "less than or equal to 1000"),
            ("clusters demo workers", [-1], "greater than or equal to 0"),
            ("clusters demo workers", ["1", 1.5, True], "a whole number"),
            ("clusters demo cpus", [0], "greater than or equal to 0.01"),
            ("clusters demo cpus", [1025], "less than or equal to 1024"),
            ("clusters demo cpus", [math.inf, math.nan], "a finite number"),
            ("clusters demo memory", ["2x"], "a number with k, m or g, such as 10m"),
            ("clusters demo memory", ["255m"], "from 256m to 1024g"),
            ("clusters demo talosVersion", ["latest"], "a version such as v1.11.5"),
            ("clusters demo kubernetesVersion", ["1.34"], "a version such as v1.11.5"),
            ("clusters demo kubernetesVersion", [1.34], "a text"),
            ("clusters demo image", ["A b"], "an image reference such as registry:3.1.2"),
            ("clusters demo disks", ["virtio:10GiB"], "a list"),
            ("clusters demo disks 0", [""], "non-empty text"),
            ("clusters demo mirrors", [["docker.io"], 5, "ghcr.io"], "a mapping"),
            ("clusters demo mirrors docker.io", ["no way"], "true or false"),
            ("clusters demo mirrors a_b", [False], "a registry host"),
            ("clusters demo mirrors ghcr.io", [False], "cache it; allowed: docker.io, quay.io"),
            ("clusters demo mirrorHost", ["", "http://10.5.0.1", "10.5.0.1:5000", "a b"], A_HOST),
            ("clusters demo skipFallback", ["yes"], "true or false"),
            ("clusters demo mergeKubeconfig", [1], "true or false"),
            ("clusters demo onLostNodes", ["start"], "'keep' or 'replace'"),
            ("clusters demo wait", ["ready", False], "'healthy', 'api' or 'none'"),
            ("clusters demo extraArguments", ["--debug"], "a list"),
            ("clusters demo extraArguments 0", [1], "a text"),
            ("clusters demo extraArguments 0", ["a\0"], "tabs and line breaks"),
            ("clusters demo extraArguments 0", [""], "non-e"),
            ("clusters demo timeout", ["20 minutes"], "a duration such as 20m"),
            ("clusters demo timeout", [20], "a text"),
            ("clusters demo timeout", ["999ms", "169h"], "from 1s to 168h"),
            ("clusters demo cidr", ["10.5.0.1/24"], "without host bits, such as 10.5.0.0/24"),
            ("clusters demo cidr", ["10.5.0.0/33", "fd00::/64"], "an IPv4 network such as 10.5.0"),
            ("clusters demo cidr", ["10.5.0.0/30", "10.5.0.0"], "a network of /29 or larger"),
            ("clusters demo cidr", ["127.0.0.0/8", "169.254.0.0/16"], "a unicast network"),
            ("clusters demo cidr", ["224.0.0.0/24", "240.0.0.0/8", "0.0.0.0/8"], "a unicast netw"),
            ("clusters demo configPatches 0", PATCHES, A_PATCH),
            ("clusters demo configPatchesWorkers 0", PATCHES, A_PATCH),
            ("clusters demo configPatches 0", ["a: b: c"], "a mapping, or valid YAML text"),
            ("clusters demo configPatches 0", ["text", "---"], "or a list of JSON patches"),
        ],
    ),
)
def test_an_invalid_value_is_reported_at_its_path(
    base: Mapping[str, Any], path: str, value: Any, kind: str
) -> None:
    assert_wrong(base, path, value, kind)
