import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from talos_registry_cache.talos import command_line, versions
from talos_registry_cache.talos.cluster_files import Places
from talos_registry_cache.talos.cluster_spec import ClusterSpec, Provisioner
from talos_registry_cache.talos.command_line import Invocation
from talos_registry_cache.talos.errors import UnsupportedError
from talos_registry_cache.talos.mirror import Mirror
from talos_registry_cache.talos.versions import Talosctl, Version

PLACES = Places(Path("/stack"), "demo")
GUIDE_DOCKER = {
    "docker.io": Mirror("http://172.17.0.1:5000"),
    "k8s.gcr.io": Mirror("http://172.17.0.1:5001"),
    "quay.io": Mirror("http://172.17.0.1:5002"),
}
GUIDE_VIRTUAL = {
    host: Mirror(mirror.url.replace("172.17.0.1", "10.5.0.1"))
    for host, mirror in GUIDE_DOCKER.items()
}

# The guide's own lines, as it has them.
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
    "workers": 3,
    "cpus": 2.5,
    "memory_mib": 4096,
    "cidr": "10.6.0.0/24",
    "kubernetes_version": "v1.30.0",
    "timeout_s": 90,
    "extra_arguments": ("--mtu", "1450"),
}


def talosctl(version: str) -> Talosctl:
    parsed = versions.parse(version)
    assert parsed is not None
    return Talosctl("/bin/talosctl", parsed)


def created(version: str, **wanted: Any) -> Invocation:
    spec = ClusterSpec(name="demo", **wanted)
    return command_line.create(spec, talosctl(version), PLACES)


def words(version: str, **wanted: Any) -> str:
    invocation = created(version, **wanted)
    return " ".join((*invocation.words, *invocation.extra))


def pasted(line: str) -> list[str]:
    return shlex.split(line.replace("\\\n", " "))


# The guide's lines


@pytest.mark.parametrize("version", ["0.4", "0.5", "0.6", "0.9", "0.12", "0.13", "1.0", "1.11.5"])
def test_the_guides_docker_line_comes_out_to_the_letter(version: str) -> None:
    line = created(version, mirrors=GUIDE_DOCKER).guide_line()

    assert shlex.split(line) == pasted(GUIDE_DOCKER_LINE)


@pytest.mark.parametrize("version", ["0.4", "0.6", "0.12"])
def test_the_guides_firecracker_line_comes_out_to_the_letter(version: str) -> None:
    line = created(version, provisioner=Provisioner.FIRECRACKER, mirrors=GUIDE_VIRTUAL).guide_line()

    assert shlex.split(line) == pasted(GUIDE_FIRECRACKER_LINE)


def test_what_is_run_is_the_guides_line_and_then_where_the_cluster_is_kept() -> None:
    invocation = created("1.11.5", mirrors=GUIDE_DOCKER)

    guide = pasted(GUIDE_DOCKER_LINE)
    assert invocation.argv(is_root=False) == (
        "/bin/talosctl",
        *guide[1:],
        *("--name", "demo", "--state", "/stack/demo/state"),
        *("--talosconfig", "/stack/demo/talosconfig"),
    )
    assert invocation.env == {"KUBECONFIG": "/stack/demo/kubeconfig"}


def test_from_1_12_on_the_talosconfig_has_another_flag() -> None:
    assert created("1.12.0").places == (
        *("--name", "demo", "--state", "/stack/demo/state"),
        *("--talosconfig-destination", "/stack/demo/talosconfig"),
    )


def test_the_line_that_is_run_can_be_pasted() -> None:
    invocation = command_line.create(
        ClusterSpec(name="demo"), talosctl("1.13"), Places(Path("/my stack"), "demo")
    )

    assert invocation.line(is_root=True) == (
        "KUBECONFIG='/my stack/demo/kubeconfig' /bin/talosctl cluster create docker --name demo "
        "--state '/my stack/demo/state' --talosconfig-destination '/my stack/demo/talosconfig'"
    )


def test_words_of_ones_own_come_last_so_that_none_of_ours_is_taken_for_a_value() -> None:
    invocation = created("1.13", extra_arguments=("--mtu",))

    assert invocation.argv(is_root=True)[-1] == "--mtu"
    assert invocation.guide_line() == "talosctl cluster create docker --mtu"


# Every option, in every generation


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        (
            "0.12",
            (
                "cluster create --provisioner docker --masters 3 --workers 3 --cpus 2.5 "
                "--memory 4096 --cidr 10.6.0.0/24 --kubernetes-version 1.30.0 "
                "--wait-timeout 90s --mtu 1450"
            ),
        ),
        (
            "1.0",
            (
                "cluster create --provisioner docker --masters 3 --workers 3 --cpus 2.5 "
                "--memory 4096 --cpus-workers 2.5 --memory-workers 4096 "
                "--cidr 10.6.0.0/24 --kubernetes-version 1.30.0 --wait-timeout 90s --mtu 1450"
            ),
        ),
        (
            "1.11.5",
            (
                "cluster create --provisioner docker --controlplanes 3 --workers 3 --cpus 2.5 "
                "--memory 4096 --cpus-workers 2.5 --memory-workers 4096 "
                "--cidr 10.6.0.0/24 --kubernetes-version 1.30.0 --wait-timeout 90s --mtu 1450"
            ),
        ),
    ],
)
def test_docker_with_everything(version: str, expected: str) -> None:
    assert words(version, controlplanes=3, **EVERYTHING) == expected


@pytest.mark.parametrize("version", ["1.12.0", "1.13.0", "1.14.0-rc.1"])
def test_docker_with_everything_as_a_subcommand(version: str) -> None:
    assert words(version, controlplanes=1, **EVERYTHING) == (
        "cluster create docker --workers 3 --cpus-controlplanes 2.5 --cpus-workers 2.5 "
        "--memory-controlplanes 4096MiB --memory-workers 4096MiB --subnet 10.6.0.0/24 "
        "--kubernetes-version 1.30.0 --mtu 1450"
    )


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        (
            "0.12",
            (
                "cluster create --provisioner qemu --masters 3 --workers 3 --cpus 2.5 "
                "--memory 4096 --cidr 10.6.0.0/24 --talos-version v0.12.1 "
                "--kubernetes-version 1.30.0 --wait-timeout 90s --mtu 1450"
            ),
        ),
        (
            "1.13.0",
            (
                "cluster create qemu --controlplanes 3 --workers 3 --cpus-controlplanes 2.5 "
                "--cpus-workers 2.5 --memory-controlplanes 4096MiB --memory-workers 4096MiB "
                "--cidr 10.6.0.0/24 --talos-version v0.12.1 --kubernetes-version 1.30.0 --mtu 1450"
            ),
        ),
    ],
)
def test_qemu_with_everything(version: str, expected: str) -> None:
    wanted = {**EVERYTHING, "controlplanes": 3, "talos_version": "v0.12.1"}
    assert words(version, provisioner=Provisioner.QEMU, **wanted) == expected


def test_disks_of_virtual_machines() -> None:
    disks = ("virtio:10GiB", "nvme:6GiB")
    assert words("1.13", provisioner=Provisioner.QEMU, disks=disks) == (
        "cluster create qemu --disks virtio:10GiB,nvme:6GiB"
    )


def test_what_is_left_to_talosctl_emits_no_flag() -> None:
    assert words("1.11") == "cluster create --provisioner docker"
    assert words("1.13") == "cluster create docker"


# Which Talos


@pytest.mark.parametrize(
    ("talos", "image"),
    [
        ("v0.6.0", "docker.io/autonomy/talos:v0.6.0"),
        ("0.14.0", "ghcr.io/talos-systems/talos:v0.14.0"),
        ("v1.12.3-rc.0", "ghcr.io/siderolabs/talos:v1.12.3-rc.0"),
    ],
)
@pytest.mark.parametrize("version", ["0.6.0", "1.11.0", "1.13.0"])
def test_docker_nodes_run_a_version_by_its_image(version: str, talos: str, image: str) -> None:
    assert words(version, talos_version=talos).endswith(f" --image {image}")


def test_an_image_of_ones_own_has_its_version_said_besides() -> None:
    assert words("1.11", image="registry/talos:mine", talos_version="v1.10.0").endswith(
        " --image registry/talos:mine --talos-version v1.10.0"
    )
    assert words("1.13", image="registry/talos:v1.10.0", talos_version="v1.10.0").endswith(
        " --image registry/talos:v1.10.0"
    )


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


# Mirrors that are a patch


def mirrors_patch(version: str, **wanted: Any) -> list[Any]:
    invocation = created(version, mirrors=GUIDE_DOCKER, **wanted)
    assert "--registry-mirror" not in invocation.words
    at = invocation.words.index("--config-patch")
    assert invocation.words[at + 1] == "@/stack/demo/mirrors.yaml"
    return list(yaml.safe_load_all(invocation.files["mirrors.yaml"]))


def test_from_1_12_on_mirrors_are_documents_of_their_own() -> None:
    documents = mirrors_patch("1.12.0")

    assert [document["name"] for document in documents] == list(GUIDE_DOCKER)
    assert {document["kind"] for document in documents} == {"RegistryMirrorConfig"}


@pytest.mark.parametrize(
    "wanted", [{"talos_version": "v1.11.0"}, {"image": "ghcr.io/siderolabs/talos:v1.11.5"}]
)
def test_an_older_talos_gets_mirrors_in_the_older_form(wanted: Mapping[str, Any]) -> None:
    (document,) = mirrors_patch("1.13.0", **wanted)

    assert list(document["machine"]["registries"]["mirrors"]) == list(GUIDE_DOCKER)


def test_without_fallback_mirrors_are_a_patch_before_that_as_well() -> None:
    (document,) = mirrors_patch("1.11.0", skip_fallback=True)

    assert document["machine"]["registries"]["mirrors"]["quay.io"] == {
        "endpoints": ["http://172.17.0.1:5002"],
        "skipFallback": True,
    }


def test_a_talosctl_that_knows_no_documents_writes_none_for_a_newer_talos() -> None:
    (document,) = mirrors_patch("1.11.0", skip_fallback=True, talos_version="v1.13.0")

    assert "machine" in document


# Patches


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        (
            "1.11",
            (
                "--config-patch @/stack/demo/patch-1.yaml --config-patch @/stack/demo/patch-2.yaml "
                "--config-patch-control-plane @/stack/demo/patch-controlplanes-1.yaml "
                "--config-patch-worker @/stack/demo/patch-workers-1.yaml"
            ),
        ),
        (
            "1.12",
            (
                "--config-patch @/stack/demo/patch-1.yaml --config-patch @/stack/demo/patch-2.yaml "
                "--config-patch-controlplanes @/stack/demo/patch-controlplanes-1.yaml "
                "--config-patch-workers @/stack/demo/patch-workers-1.yaml"
            ),
        ),
    ],
)
def test_patches_are_files(version: str, expected: str) -> None:
    invocation = created(
        version,
        patches=("machine: {a: 1}", "machine: {b: 2}"),
        patches_controlplanes=("machine: {c: 3}",),
        patches_workers=("machine: {d: 4}",),
    )

    assert " ".join(invocation.words).endswith(expected)
    assert list(invocation.files.values()) == [
        "machine: {a: 1}",
        "machine: {b: 2}",
        "machine: {c: 3}",
        "machine: {d: 4}",
    ]


def test_before_1_2_patches_are_lists_of_operations() -> None:
    patch = '[{"op": "add", "path": "/machine/sysctls", "value": {}}]'
    assert created("1.0", patches=(patch,)).files == {"patch-1.yaml": patch}


# Root


@pytest.mark.parametrize("version", ["0.12", "1.11.5", "1.13.0"])
def test_virtual_machines_are_made_through_sudo_unless_we_are_root(version: str) -> None:
    invocation = created(version, provisioner=Provisioner.QEMU)

    sudo = ("sudo", "--non-interactive", "--preserve-env=HOME,KUBECONFIG")
    assert invocation.argv(is_root=False) == (*sudo, *invocation.argv(is_root=True))
    assert "sudo" not in invocation.argv(is_root=True)


def test_docker_nodes_need_no_root() -> None:
    assert created("1.11").argv(is_root=False) == created("1.11").argv(is_root=True)


# Destroy


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("0.4", "cluster destroy --provisioner qemu"),
        ("1.11.5", "cluster destroy --provisioner qemu"),
        ("1.13.0", "cluster destroy"),
    ],
)
def test_destroying(version: str, expected: str) -> None:
    invocation = command_line.destroy(Provisioner.QEMU, talosctl(version), PLACES)

    assert " ".join(invocation.words) == expected
    assert invocation.places == ("--name", "demo", "--state", "/stack/demo/state")
    assert invocation.needs_root


# What a version does not have

FIRECRACKER = {"provisioner": Provisioner.FIRECRACKER}
QEMU = {"provisioner": Provisioner.QEMU}
MIRRORS = {"mirrors": GUIDE_DOCKER}
CLOSED = {"quay.io": Mirror("https://172.17.0.1:5002", "PEM", "reader", "s3cret")}


@pytest.mark.parametrize(
    ("version", "wanted", "error"),
    [
        ("0.13", FIRECRACKER, "talosctl v0.13.0 has no firecracker; versions that do: 0.4 to 0.12"),
        ("1.13", FIRECRACKER, "has no firecracker; versions that do: 0.4 to 0.12"),
        ("0.5", QEMU, "has no qemu; versions that do: 0.6 or later"),
        ("1.12", {"controlplanes": 2}, "more than one control plane on docker; .*: 0.4 to 1.11"),
        ("0.8", {**QEMU, "talos_version": "0.8.0"}, "talos_version of virt.*: 0.9 or later"),
        ("1.12", {"image": "a:b", "talos_version": "1.0.0"}, "not the image's tag; .*0.9 to 1.11"),
        ("0.8", {"image": "a:b", "talos_version": "0.8.0"}, "not the image's tag; .*0.9 to 1.11"),
        ("1.11", {**QEMU, "disks": ("virtio:1GiB",)}, "has no disks; .*: 1.12 or later"),
        ("1.13", {"disks": ("virtio:1GiB",)}, "docker nodes have no disks; allowed: with qemu"),
        ("1.11", {**QEMU, "image": "a:b"}, "qemu nodes run no image; allowed: with docker"),
        ("0.14", {"patches": ("[]",)}, "has no patches; .*: 1.0 or later"),
        ("1.1", {"patches_workers": ("a: 1",)}, "not a list of JSON patch .*: 1.2 or later"),
        ("1.12", {"patches": ("[]",)}, "are a list of JSON patch operations; .*: 1.0 to 1.11"),
        ("1.8", {**MIRRORS, "skip_fallback": True}, "has no skip_fallback; .*: 1.9 or later"),
        ("1.8", {"skip_fallback": True}, "has no skip_fallback; .*: 1.9 or later"),
        (
            "1.1",
            {"mirrors": CLOSED},
            "has no CA or password of mirrors; .*: 1.2 or later",
        ),
        (
            "1.13",
            {**MIRRORS, "skip_fallback": True, "talos_version": "v1.8.0"},
            "Talos v1.8.0 has no skip_fallback; versions that do: 1.9 or later",
        ),
    ],
)
def test_what_a_version_does_not_have_is_said_with_those_that_do(
    version: str, wanted: Mapping[str, Any], error: str
) -> None:
    with pytest.raises(UnsupportedError, match=f"cluster demo: .*{error}"):
        created(version, **wanted)


def test_all_that_a_version_does_not_have_is_told_at_once() -> None:
    with pytest.raises(
        UnsupportedError, match=r"no firecracker; .*; talosctl v1.11.0 has no disks"
    ):
        created("1.11", **FIRECRACKER, disks=("virtio:1GiB",))


def test_nodes_get_the_ca_and_the_password_of_mirrors_by_a_patch_alone() -> None:
    invocation = created("1.11", mirrors=CLOSED)

    assert "--registry-mirror" not in invocation.words
    assert "s3cret" not in invocation.line(is_root=False)
    assert "s3cret" in invocation.files["mirrors.yaml"]


# What holds for every cluster

FEW = settings(max_examples=40)

VERSIONS = st.sampled_from(
    ["0.4", "0.6", "0.12", "0.13", "1.0", "1.2", "1.9", "1.11", "1.12", "1.14"]
)
HOSTS = st.from_regex(r"[a-z0-9]([a-z0-9.-]{0,10}[a-z0-9])?(:[1-9][0-9]{0,3})?", fullmatch=True)
URLS = st.from_regex(
    r"https?://[a-z0-9.-]{1,12}(:[1-9][0-9]{0,3})?(/[a-z0-9_.~-]{1,5})?", fullmatch=True
)
WORDS = st.text(min_size=1, max_size=8).filter(lambda word: not word.startswith("-"))


def _mirrors_at(url: str) -> st.SearchStrategy[Mirror]:
    is_open = st.just(Mirror(url))
    closed = st.just(Mirror(url, "PEM", "reader", "s3cret"))
    return is_open | closed if url.startswith("https:") else is_open


@st.composite
def specs(draw: st.DrawFn) -> ClusterSpec:
    return ClusterSpec(
        name=draw(st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)),
        provisioner=draw(st.sampled_from(Provisioner)),
        controlplanes=draw(st.none() | st.integers(1, 5)),
        workers=draw(st.none() | st.integers(0, 5)),
        cpus=draw(st.none() | st.floats(0.01, 64)),
        memory_mib=draw(st.none() | st.integers(1, 2**20)),
        talos_version=draw(st.none() | st.sampled_from(["v1.9.0", "1.12.0"])),
        kubernetes_version=draw(st.none() | st.just("v1.30.0")),
        mirrors=draw(st.dictionaries(HOSTS, URLS.flatmap(_mirrors_at), max_size=5)),
        skip_fallback=draw(st.booleans()),
        patches=tuple(draw(st.lists(st.just("machine: {token: s3cret}"), max_size=2))),
        extra_arguments=tuple(draw(st.lists(WORDS, max_size=3))),
    )


# What is checked below is what is emitted; what is refused has its own tests above.
@st.composite
def invocations(draw: st.DrawFn) -> tuple[ClusterSpec, Invocation]:
    spec = draw(specs())
    places = Places(Path("/", draw(WORDS.filter(lambda word: "\0" not in word))), spec.name)
    try:
        return spec, command_line.create(spec, talosctl(draw(VERSIONS)), places)
    except UnsupportedError:
        reject()


@FEW
@given(invocations(), st.booleans())
def test_every_word_says_something(made: tuple[ClusterSpec, Invocation], is_root: bool) -> None:  # noqa: FBT001
    _, invocation = made
    assert all(invocation.argv(is_root=is_root))


@FEW
@given(invocations())
def test_every_mirror_is_there_once(made: tuple[ClusterSpec, Invocation]) -> None:
    spec, invocation = made
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
@given(invocations())
def test_what_patches_say_is_in_no_command_line(made: tuple[ClusterSpec, Invocation]) -> None:
    _, invocation = made
    assert "s3cret" not in invocation.line(is_root=False)
    assert "s3cret" not in invocation.guide_line()


@FEW
@given(invocations())
def test_nothing_is_told_to_trust_what_it_should_not(
    made: tuple[ClusterSpec, Invocation],
) -> None:
    _, invocation = made
    assert "insecure" not in " ".join([*invocation.words, *invocation.files.values()])


@FEW
@given(invocations(), st.booleans())
def test_a_shell_reads_the_line_as_it_is_run(
    made: tuple[ClusterSpec, Invocation],
    is_root: bool,  # noqa: FBT001
) -> None:
    _, invocation = made
    kubeconfig, *argv = shlex.split(invocation.line(is_root=is_root))

    assert tuple(argv) == invocation.argv(is_root=is_root)
    assert kubeconfig == f"KUBECONFIG={invocation.env['KUBECONFIG']}"


@FEW
@given(invocations())
def test_every_file_that_is_named_is_there(made: tuple[ClusterSpec, Invocation]) -> None:
    _, invocation = made
    named = [
        Path(word[1:]).name
        for word in invocation.words
        if re.match(r"@/.*\.yaml$", word, re.DOTALL)
    ]
    assert sorted(named) == sorted(invocation.files)
