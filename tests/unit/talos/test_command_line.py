import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from talos_registry_cache.endpoint import Endpoint
from talos_registry_cache.talos import command_line, versions
from talos_registry_cache.talos.cluster_files import ClusterFiles
from talos_registry_cache.talos.cluster_spec import ClusterSpec, Provisioner
from talos_registry_cache.talos.command_line import Invocation
from talos_registry_cache.talos.errors import UnsupportedError
from talos_registry_cache.talos.versions import Talosctl, Version

GUIDE_PORTS = {"docker.io": 5000, "k8s.gcr.io": 5001, "quay.io": 5002}
MIRRORS = {host: Endpoint(f"http://172.17.0.1:{port}") for host, port in GUIDE_PORTS.items()}
CLOSED = {"quay.io": Endpoint("https://172.17.0.1:5002", "PEM", "reader", "s3cret")}
QEMU = {"provisioner": Provisioner.QEMU}
FIRECRACKER = {"provisioner": Provisioner.FIRECRACKER}

# The lines of the Talos guide.
GUIDE_DOCKER_LINE = r"""
talosctl cluster create --provisioner docker \
    --registry-mirror docker.io=http://172.17.0.1:5000 \
    --registry-mirror k8s.gcr.io=http://172.17.0.1:5001 \
    --registry-mirror quay.io=http://172.17.0.1:5002
"""
GUIDE_FIRECRACKER_LINE = r"""
sudo talosctl cluster create --provisioner firecracker \
    --registry-mirror docker.io=http://10.5.0.1:5000 \
    --registry-mirror k8s.gcr.io=http://10.5.0.1:5001 \
    --registry-mirror quay.io=http://10.5.0.1:5002
"""

EVERYTHING: Mapping[str, Any] = {
    "controlplanes": 3,
    "workers": 3,
    "cpus": 2.5,
    "memory_mib": 4096,
    "cidr": "10.6.0.0/24",
    "kubernetes_version": "v1.30.0",
    "extra_arguments": ("--mtu", "1450"),
}


def talosctl(version: str) -> Talosctl:
    parsed = versions.parse(version)
    assert parsed is not None
    return Talosctl("/bin/talosctl", parsed)


def plan(version: str, folder: str = "/stack", **wanted: Any) -> Invocation:
    spec = ClusterSpec(name="demo", **wanted)
    return command_line.create(spec, talosctl(version), ClusterFiles(Path(folder), "demo"))


def words(version: str, **wanted: Any) -> str:
    invocation = plan(version, **wanted)
    return " ".join((*invocation.words, *invocation.extra_arguments))


def pasted(line: str) -> list[str]:
    return shlex.split(line.replace("\\\n", " "))


# The guide's lines


@pytest.mark.parametrize("version", ["0.4", "0.5", "0.6", "0.9", "0.12", "0.13", "1.0", "1.11.5"])
def test_docker_line_of_the_guide_is_reproduced_exactly(version: str) -> None:
    invocation = plan(version, mirrors=MIRRORS, timeout_s=90)

    assert shlex.split(invocation.guide_line()) == pasted(GUIDE_DOCKER_LINE)
    assert invocation.argv(is_root=False) == (
        "/bin/talosctl",
        *pasted(GUIDE_DOCKER_LINE)[1:],
        *("--name", "demo", "--state", "/stack/demo/state"),
        *("--talosconfig", "/stack/demo/talosconfig", "--wait-timeout", "90s"),
    )
    assert invocation.env == {"KUBECONFIG": "/stack/demo/kubeconfig"}
    assert invocation.timeout_s == 90


@pytest.mark.parametrize("version", ["0.4", "0.6", "0.12"])
def test_firecracker_line_of_the_guide_is_reproduced_exactly(version: str) -> None:
    mirrors = {host: Endpoint(f"http://10.5.0.1:{port}") for host, port in GUIDE_PORTS.items()}
    line = plan(version, mirrors=mirrors, **FIRECRACKER).guide_line()

    assert shlex.split(line) == pasted(GUIDE_FIRECRACKER_LINE)


def test_the_line_that_runs_can_be_pasted() -> None:
    assert plan("1.13", "/my stack").line(is_root=True) == (
        "KUBECONFIG='/my stack/demo/kubeconfig' /bin/talosctl cluster create docker --name demo "
        "--state '/my stack/demo/state' --talosconfig-destination '/my stack/demo/talosconfig'"
    )


def test_the_users_arguments_come_last_and_swallow_no_flag() -> None:
    invocation = plan("1.13", extra_arguments=("--mtu",))

    assert invocation.argv(is_root=True)[-1] == "--mtu"
    assert invocation.guide_line() == "talosctl cluster create docker --mtu"


SIZES = "--cpus 2.5 --memory 4096"
SIZES_OF_BOTH = f"{SIZES} --cpus-workers 2.5 --memory-workers 4096"
SIZES_SINCE_1_12 = (
    "--cpus-controlplanes 2.5 --cpus-workers 2.5 "
    "--memory-controlplanes 4096MiB --memory-workers 4096MiB"
)
VIRTUAL = {**QEMU, "talos_version": "0.12.1"}


@pytest.mark.parametrize(
    ("version", "wanted", "expected"),
    [
        ("0.12", {}, f"--provisioner docker --masters 3 --workers 3 {SIZES} --cidr NET"),
        ("1.0", {}, f"--provisioner docker --masters 3 --workers 3 {SIZES_OF_BOTH} --cidr NET"),
        (
            "1.11.5",
            {},
            f"--provisioner docker --controlplanes 3 --workers 3 {SIZES_OF_BOTH} --cidr NET",
        ),
        ("1.12.0", {"controlplanes": 1}, f"docker --workers 3 {SIZES_SINCE_1_12} --subnet NET"),
        (
            "1.14.0-rc.1",
            {"controlplanes": 1},
            f"docker --workers 3 {SIZES_SINCE_1_12} --subnet NET",
        ),
        (
            "0.12",
            VIRTUAL,
            f"--provisioner qemu --masters 3 --workers 3 {SIZES} --cidr NET --talos-version 0.12.1",
        ),
        (
            "1.13.0",
            {**VIRTUAL, "disks": ("virtio:10GiB", "nvme:6GiB")},
            (
                f"qemu --controlplanes 3 --workers 3 {SIZES_SINCE_1_12} --cidr NET "
                "--disks virtio:10GiB,nvme:6GiB --talos-version 0.12.1"
            ),
        ),
    ],
)
def test_every_option_in_every_generation(
    version: str, wanted: Mapping[str, Any], expected: str
) -> None:
    line = words(version, **{**EVERYTHING, **wanted}).replace("10.6.0.0/24", "NET")

    assert line == f"cluster create {expected} --kubernetes-version 1.30.0 --mtu 1450"


# The version of Talos


@pytest.mark.parametrize(
    ("talos", "image"),
    [
        ("v0.6.0", "docker.io/autonomy/talos:v0.6.0"),
        ("0.7.0", "ghcr.io/talos-systems/talos:v0.7.0"),
        ("v0.14.0", "ghcr.io/talos-systems/talos:v0.14.0"),
        ("v1.0.0-rc.0", "ghcr.io/siderolabs/talos:v1.0.0-rc.0"),
    ],
)
@pytest.mark.parametrize("version", ["0.6.0", "1.11.0", "1.13.0"])
def test_docker_nodes_get_their_version_by_their_image(
    version: str, talos: str, image: str
) -> None:
    spec = ClusterSpec(name="demo", talos_version=talos)

    assert words(version, talos_version=talos).endswith(f" --image {image}")
    assert command_line.node_image(spec, Version(1, 13)) == image


@pytest.mark.parametrize(
    ("version", "image", "talos_version_flag"),
    [
        ("1.11", "registry/talos:mine", " --talos-version v1.10.0"),
        ("1.13", "registry/talos:v1.10.0", ""),
    ],
)
def test_a_version_beside_the_users_image_is_a_flag_unless_its_tag_is_one(
    version: str, image: str, talos_version_flag: str
) -> None:
    line = words(version, image=image, talos_version="v1.10.0")

    assert line.endswith(f" --image {image}{talos_version_flag}")


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({}, Version(1, 13)),
        ({"image": "ghcr.io/siderolabs/talos:v1.10.2"}, Version(1, 10, 2)),
        ({"image": "localhost:5000/talos"}, Version(1, 13)),
        ({"image": "talos:v1.10.2@sha256:" + "0" * 64}, Version(1, 10, 2)),
        ({"image": "talos:mine", "talos_version": "v1.9.0"}, Version(1, 9)),
    ],
)
def test_the_version_on_the_nodes(wanted: Mapping[str, Any], expected: Version) -> None:
    spec = ClusterSpec(name="demo", **wanted)
    assert command_line.target_version(spec, Version(1, 13)) == expected


# Mirrors as a patch


@pytest.mark.parametrize("version", ["1.2.0", "1.11.5", "1.13.0"])
def test_a_registry_on_the_workstation_is_announced_to_tools_by_the_control_planes(
    version: str,
) -> None:
    mirrors = {"localhost:5010": Endpoint("http://10.5.0.1:5010"), **MIRRORS}
    invocation = plan(version, mirrors=mirrors)

    (patch,) = [name for name in invocation.files if name.startswith("patch-controlplanes-")]
    (manifest,) = yaml.safe_load(invocation.files[patch])["cluster"]["inlineManifests"]
    announced = yaml.safe_load(manifest["contents"])
    assert f"@/stack/demo/{patch}" in invocation.words
    assert announced["metadata"] == {"name": "local-registry-hosting", "namespace": "kube-public"}
    assert yaml.safe_load(announced["data"]["localRegistryHosting.v1"]) == {
        "host": "localhost:5010",
        "hostFromContainerRuntime": "localhost:5010",
        "hostFromClusterNetwork": "10.5.0.1:5010",
    }


@pytest.mark.parametrize("version", ["1.1.0", "1.13.0"])
def test_nothing_is_announced_without_one_or_where_talosctl_reads_no_yaml(version: str) -> None:
    local = {"localhost:5010": Endpoint("http://10.5.0.1:5010")} if version == "1.1.0" else {}
    invocation = plan(version, mirrors={**MIRRORS, **local})

    assert not [name for name in invocation.files if name.startswith("patch-controlplanes-")]


def mirrors_patch(version: str, **wanted: Any) -> list[Any]:
    invocation = plan(version, **{"mirrors": MIRRORS, **wanted})
    assert "--registry-mirror" not in invocation.words
    assert "--config-patch @/stack/demo/mirrors.yaml" in " ".join(invocation.words)
    return list(yaml.safe_load_all(invocation.files["mirrors.yaml"]))


@pytest.mark.parametrize(
    ("version", "wanted", "is_legacy"),
    [
        ("1.12.0", {}, False),
        ("1.13.0", {"talos_version": "v1.11.0"}, True),
        ("1.13.0", {"image": "ghcr.io/siderolabs/talos:v1.11.5"}, True),
        ("1.11.0", {"skip_fallback": True, "talos_version": "v1.13.0"}, True),
        ("1.11.0", {"mirrors": MIRRORS | CLOSED}, True),
    ],
)
def test_talosctl_or_talos_before_1_12_gets_the_legacy_form(
    version: str, wanted: Mapping[str, Any], *, is_legacy: bool
) -> None:
    documents = mirrors_patch(version, **wanted)

    if is_legacy:
        mirrors = documents[0]["machine"]["registries"]["mirrors"]
        assert list(mirrors) == list(MIRRORS)
        skips = {one.get("skipFallback", False) for one in mirrors.values()}
        assert skips == {"skip_fallback" in wanted}
    else:
        assert [document["name"] for document in documents] == list(MIRRORS)


# Patches


@pytest.mark.parametrize(
    ("version", "controlplanes", "workers"),
    [("1.11", "control-plane", "worker"), ("1.12", "controlplanes", "workers")],
)
def test_patches_are_files(version: str, controlplanes: str, workers: str) -> None:
    invocation = plan(
        version,
        patches=("machine: {a: 1}", "machine: {b: 2}"),
        patches_controlplanes=("machine: {c: 3}",),
        patches_workers=("machine: {d: 4}",),
    )

    assert " ".join(invocation.words).endswith(
        "--config-patch @/stack/demo/patch-1.yaml --config-patch @/stack/demo/patch-2.yaml "
        f"--config-patch-{controlplanes} @/stack/demo/patch-controlplanes-1.yaml "
        f"--config-patch-{workers} @/stack/demo/patch-workers-1.yaml"
    )
    assert list(invocation.files.values()) == [
        f"machine: {{{setting}}}" for setting in ("a: 1", "b: 2", "c: 3", "d: 4")
    ]
    assert plan("1.0", patches=('[{"op": "add"}]',)).files == {"patch-1.yaml": '[{"op": "add"}]'}


# Root


@pytest.mark.parametrize("version", ["0.12", "1.11.5", "1.13.0"])
def test_only_virtual_machines_are_created_through_sudo_unless_we_are_root(version: str) -> None:
    invocation = plan(version, **QEMU)

    sudo = ("sudo", "--non-interactive", "--preserve-env=HOME,KUBECONFIG")
    assert invocation.argv(is_root=False) == (*sudo, *invocation.argv(is_root=True))
    assert "sudo" not in invocation.argv(is_root=True)
    assert "sudo" not in plan(version).argv(is_root=False)


# Destroy


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("0.4", "cluster destroy --provisioner qemu"),
        ("1.11.5", "cluster destroy --provisioner qemu"),
        ("1.13.0", "cluster destroy"),
    ],
)
def test_destroy(version: str, expected: str) -> None:
    files = ClusterFiles(Path("/stack"), "demo")
    argv = command_line.destroy(Provisioner.QEMU, talosctl(version), files).argv(is_root=False)

    assert " ".join(argv).endswith(
        f" /bin/talosctl {expected} --name demo --state /stack/demo/state"
    )
    assert argv[0] == "sudo"


# What a version does not support


@pytest.mark.parametrize(
    ("version", "wanted", "error"),
    [
        ("0.13", FIRECRACKER, "talosctl v0.13.0 .* firecracker; allowed: talosctl 0.4 to 0.12"),
        ("0.5", QEMU, "qemu; allowed: talosctl 0.6 or later"),
        ("1.12", {"controlplanes": 2}, "more than one control plane on docker; .* 0.4 to 1.11"),
        ("0.8", {**QEMU, "talos_version": "0.8.0"}, "talosVersion for virtual .* 0.9 or later"),
        ("1.12", {"image": "a:b", "talos_version": "1.0.0"}, "the image's tag; .* 0.9 to 1.11"),
        ("0.8", {"image": "a:b", "talos_version": "0.8.0"}, "the image's tag; .* 0.9 to 1.11"),
        ("1.11", {**QEMU, "disks": ("virtio:1GiB",)}, "disks; .* 1.12 or later"),
        ("1.13", {"disks": ("virtio:1GiB",)}, "found disks for docker nodes; allowed: with qemu"),
        ("1.11", {**QEMU, "image": "a:b"}, "found an image for qemu nodes; allowed: with docker"),
        ("0.14", {"patches": ("[]",)}, "patches; .* 1.0 or later"),
        ("1.1", {"patches_workers": ("a: 1",)}, "patches in YAML; .* 1.2 or later"),
        ("1.12", {"patches": ("[]",)}, "Talos v1.12.0 .* JSON patches; allowed: Talos 1.0 to 1.11"),
        ("1.8", {"skip_fallback": True}, "skipFallback; .* 1.9 or later"),
        ("1.13", {"skip_fallback": True, "talos_version": "v1.8.0"}, "Talos v1.8.0 .* Talos 1.9"),
        ("1.1", {"mirrors": CLOSED}, "mirrors with a CA or password; .* 1.2 or later"),
    ],
)
def test_unsupported_features_are_refused_with_the_versions_that_support_them(
    version: str, wanted: Mapping[str, Any], error: str
) -> None:
    with pytest.raises(UnsupportedError, match=error):
        plan(version, **wanted)


def test_all_unsupported_features_are_reported_together() -> None:
    with pytest.raises(UnsupportedError, match=r"support firecracker; .*support disks"):
        plan("1.11", **FIRECRACKER, disks=("virtio:1GiB",))


# Properties of every plan

FEW = settings(max_examples=40)

VERSIONS = st.sampled_from(
    ["0.4", "0.6", "0.12", "0.13", "1.0", "1.2", "1.9", "1.11", "1.12", "1.14"]
)
HOSTS = st.from_regex(r"[a-z0-9]([a-z0-9.-]{0,10}[a-z0-9])?(:[1-9][0-9]{0,3})?", fullmatch=True)
URLS = st.from_regex(
    r"https?://[a-z0-9.-]{1,12}(:[1-9][0-9]{0,3})?(/[a-z0-9_.~-]{1,5})?", fullmatch=True
)
WORDS = st.text(min_size=1, max_size=8).filter(lambda word: not word.startswith("-"))


def _mirrors_at(url: str) -> st.SearchStrategy[Endpoint]:
    is_open = st.just(Endpoint(url))
    closed = st.just(Endpoint(url, "PEM", "reader", "s3cret"))
    return is_open | closed if url.startswith("https:") else is_open


@st.composite
def specs(draw: st.DrawFn) -> ClusterSpec:
    return ClusterSpec(
        name=draw(st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)),
        provisioner=draw(st.sampled_from(Provisioner)),
        controlplanes=draw(st.integers(1, 5)),
        workers=draw(st.integers(0, 5)),
        cpus=draw(st.none() | st.floats(0.01, 64)),
        memory_mib=draw(st.none() | st.integers(1, 2**20)),
        talos_version=draw(st.none() | st.sampled_from(["v1.9.0", "1.12.0"])),
        kubernetes_version=draw(st.none() | st.just("v1.30.0")),
        mirrors=draw(st.dictionaries(HOSTS, URLS.flatmap(_mirrors_at), max_size=5)),
        skip_fallback=draw(st.booleans()),
        patches=tuple(draw(st.lists(st.just("machine: {token: s3cret}"), max_size=2))),
        extra_arguments=tuple(draw(st.lists(WORDS, max_size=3))),
    )


@st.composite
def plans(draw: st.DrawFn) -> tuple[ClusterSpec, Invocation]:
    spec = draw(specs())
    files = ClusterFiles(Path("/", draw(WORDS.filter(lambda word: "\0" not in word))), spec.name)
    try:
        return spec, command_line.create(spec, talosctl(draw(VERSIONS)), files)
    except UnsupportedError:
        reject()


@FEW
@given(plans())
def test_every_mirror_is_configured_once(planned: tuple[ClusterSpec, Invocation]) -> None:
    spec, invocation = planned
    words = invocation.words
    by_flag = [words[at + 1] for at, word in enumerate(words) if word == "--registry-mirror"]
    found = [tuple(mirror.split("=", 1)) for mirror in by_flag]
    for document in yaml.safe_load_all(invocation.files.get("mirrors.yaml", "")):
        if document.get("kind") == "RegistryMirrorConfig":
            found.append((document["name"], document["endpoints"][0]["url"]))
        elif "machine" in document:
            mirrors = document["machine"]["registries"]["mirrors"]
            found += [(host, mirror["endpoints"][0]) for host, mirror in mirrors.items()]

    assert found == [(host, mirror.url) for host, mirror in spec.mirrors.items()]


@FEW
@given(plans())
def test_secrets_in_patches_are_on_no_command_line_and_verification_is_never_skipped(
    planned: tuple[ClusterSpec, Invocation],
) -> None:
    _, invocation = planned
    assert "s3cret" not in invocation.line(is_root=False)
    assert "s3cret" not in invocation.guide_line()
    assert "insecure" not in " ".join([*invocation.words, *invocation.files.values()])


@FEW
@given(plans(), st.booleans())
def test_a_shell_reads_the_line_as_it_runs(
    planned: tuple[ClusterSpec, Invocation],
    is_root: bool,  # noqa: FBT001
) -> None:
    _, invocation = planned
    kubeconfig, *argv = shlex.split(invocation.line(is_root=is_root))

    assert tuple(argv) == invocation.argv(is_root=is_root)
    assert all(argv)
    assert kubeconfig == f"KUBECONFIG={invocation.env['KUBECONFIG']}"


@FEW
@given(plans())
def test_the_files_on_the_command_line_are_those_of_the_plan(
    planned: tuple[ClusterSpec, Invocation],
) -> None:
    _, invocation = planned
    named = [
        Path(word[1:]).name
        for word in invocation.words
        if re.match(r"@/.*\.yaml$", word, re.DOTALL)
    ]
    assert sorted(named) == sorted(invocation.files)
