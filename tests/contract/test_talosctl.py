"""The command lines and patches of talos/, read by the real talosctl of two generations.

talosctl parses the whole command line and then fails: for docker because there is no engine, for
qemu because of a last argument that it refuses only after parsing. So no cluster is created.
"""

import shutil
import subprocess
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.certificate_authority import issue_authority
from talos_registry_cache.endpoint import Endpoint
from talos_registry_cache.talos import cluster, command_line, images, machine_config, versions
from talos_registry_cache.talos.cluster_files import ClusterFiles, write_private
from talos_registry_cache.talos.cluster_spec import ClusterSpec, Provisioner
from talos_registry_cache.talos.machine_config import MirrorForm
from talos_registry_cache.talos.versions import Talosctl
from tests.support import newest_talosctl
from toolchain import kubernetes_images

WITHIN_S = 300
MIRRORS = {
    "docker.io": Endpoint("http://172.17.0.1:5000"),
    "localhost:5005": Endpoint("https://10.5.0.1:5001/path"),
    "*": Endpoint("http://172.17.0.1:5010"),
}
CA = issue_authority("tests", datetime.now(UTC)).certificate
CLOSED = {"docker.io": Endpoint("https://172.17.0.1:5000", CA, "adam", "s3cret: #1")}
NO_ENGINE = "unix:///no/engine.sock"

CLASSIC = "talosctl-1.11"
SUBCOMMANDS = "talosctl-1.13"
# Of the same generation.
NEWEST = newest_talosctl.NAME
SINCE_1_12 = (SUBCOMMANDS, pytest.param(NEWEST, marks=newest_talosctl.IF_BUILT))
EACH = pytest.mark.parametrize("program", [CLASSIC, *SINCE_1_12])

# The error after it has parsed the command line and the patches, and finds no engine.
PARSED = {
    CLASSIC: "Cannot connect to the Docker daemon",
    SUBCOMMANDS: "failed to connect to",
    NEWEST: "failed to connect to",
}

# Flags whose values are refused after parsing, and the error.
REFUSED_LATER = {
    CLASSIC: (("--cidr", "nonsense"), "error validating cidr block"),
    SUBCOMMANDS: (("--presets", "nonsense"), 'unknown preset: "nonsense"'),
    NEWEST: (("--presets", "nonsense"), 'unknown preset: "nonsense"'),
}


def found(program: str) -> Talosctl:
    assert shutil.which(program), f"{program} is not on PATH; run the tests by `make test`"
    talosctl = versions.find(program)
    assert str(talosctl.version).startswith(program.replace("talosctl-", "v"))
    return talosctl


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command with its own home and without an engine."""
    return subprocess.run(
        words,
        capture_output=True,
        text=True,
        check=False,
        timeout=WITHIN_S,
        stdin=subprocess.DEVNULL,
        env={"HOME": str(folder), "DOCKER_HOST": NO_ENGINE, "PATH": "/usr/bin:/bin"},
        cwd=folder,
    )


def output(folder: Path, program: str, spec: ClusterSpec) -> str:
    """The output of talosctl for the command line that creates a cluster."""
    files = ClusterFiles(folder / "stack", spec.name)
    invocation = command_line.create(spec, found(program), files)
    files.state.mkdir(parents=True)
    write_private(files.talosconfig, cluster.EMPTY_TALOSCONFIG)
    for name, content in invocation.files.items():
        write_private(files.patch(name), content)
    done = run(folder, *invocation.argv(is_root=True))
    assert done.returncode == 1
    return done.stdout + done.stderr


# Command lines

OPERATIONS = '[{"op": "add", "path": "/machine/nodeLabels", "value": {"a": "b"}}]'

DOCKER: Mapping[str, Mapping[str, Any]] = {
    "defaults": {},
    "nodes": {"workers": 3, "cpus": 1.5, "memory_mib": 3072},
    "no workers": {"workers": 0},
    "network": {"cidr": "10.66.0.0/24"},
    "talos": {"talos_version": "v1.11.2"},
    "image": {"image": "ghcr.io/siderolabs/talos:v1.10.0"},
    "kubernetes": {"kubernetes_version": "v1.32.0"},
    "mirrors": {"mirrors": MIRRORS},
    "mirrors of an older talos": {"mirrors": MIRRORS, "talos_version": "v1.10.0"},
    "mirrors that are closed": {"mirrors": CLOSED},
    "mirrors that are closed, of an older talos": {"mirrors": CLOSED, "talos_version": "v1.10.0"},
    "mirrors without fallback": {"mirrors": MIRRORS, "skip_fallback": True},
    "patches": {
        "patches": ("machine: {sysctls: {vm.swappiness: '1'}}",),
        "patches_controlplanes": ("cluster: {allowSchedulingOnControlPlanes: true}",),
        "patches_workers": ("machine: {nodeLabels: {a: b}}",),
    },
    "patches as operations": {"patches": (OPERATIONS,), "talos_version": "v1.11.0"},
    "timeout": {"timeout_s": 90},
    "more arguments": {"extra_arguments": ("--exposed-ports", "8080:80/tcp", "--mtu", "1400")},
}


@EACH
@pytest.mark.parametrize("wanted", DOCKER.values(), ids=DOCKER.keys())
def test_docker_command_lines_are_parsed(
    tmp_path: Path, program: str, wanted: Mapping[str, Any]
) -> None:
    assert PARSED[program] in output(tmp_path, program, ClusterSpec(name="demo", **wanted))


@pytest.mark.parametrize(
    "wanted", [{"controlplanes": 3}, {"image": "talos:mine", "talos_version": "v1.10.0"}]
)
def test_features_before_1_12_are_parsed(tmp_path: Path, wanted: Mapping[str, Any]) -> None:
    assert PARSED[CLASSIC] in output(tmp_path, CLASSIC, ClusterSpec(name="demo", **wanted))


QEMU: Mapping[str, Mapping[str, Any]] = {
    "defaults": {},
    "nodes": {"controlplanes": 3, "workers": 3, "cpus": 1.5, "memory_mib": 3072},
    "versions": {"talos_version": "v1.11.2", "kubernetes_version": "v1.32.0"},
    "mirrors": {"mirrors": MIRRORS},
    "patches": {
        "patches": ("a: 1",),
        "patches_controlplanes": ("b: 2",),
        "patches_workers": ("c",),
    },
    "network and timeout": {"cidr": "10.66.0.0/24", "timeout_s": 90},
}


def then_refused(program: str, **wanted: Any) -> tuple[ClusterSpec, str]:
    words, answer = REFUSED_LATER[program]
    spec = ClusterSpec(name="demo", provisioner=Provisioner.QEMU, **wanted)
    return replace(spec, extra_arguments=(*spec.extra_arguments, *words)), answer


@EACH
@pytest.mark.parametrize("wanted", QEMU.values(), ids=QEMU.keys())
def test_qemu_command_lines_are_parsed(
    tmp_path: Path, program: str, wanted: Mapping[str, Any]
) -> None:
    spec, answer = then_refused(program, **wanted)
    assert answer in output(tmp_path, program, spec)


@pytest.mark.parametrize("program", SINCE_1_12)
def test_disks_are_parsed_since_1_12(tmp_path: Path, program: str) -> None:
    spec, answer = then_refused(program, disks=("virtio:10GiB", "nvme:6GiB"))
    assert answer in output(tmp_path, program, spec)


# These checks can fail


@EACH
@pytest.mark.parametrize("provisioner", [Provisioner.DOCKER, Provisioner.QEMU])
def test_a_wrong_command_line_is_refused(
    tmp_path: Path, program: str, provisioner: Provisioner
) -> None:
    later = REFUSED_LATER[program][0] if provisioner.is_virtual else ()
    words = (*later, "--wrokers", "2")
    said = output(
        tmp_path, program, ClusterSpec(name="demo", provisioner=provisioner, extra_arguments=words)
    )
    assert "unknown flag: --wrokers" in said
    assert PARSED[program] not in said


@EACH
def test_a_wrong_patch_is_refused(tmp_path: Path, program: str) -> None:
    said = output(tmp_path, program, ClusterSpec(name="demo", patches=("machine: {nonsense: 1}",)))
    assert "unknown keys found during decoding" in said
    assert PARSED[program] not in said


@EACH
def test_destroy_is_parsed(tmp_path: Path, program: str) -> None:
    files = ClusterFiles(tmp_path, "demo")
    invocation = command_line.destroy(Provisioner.DOCKER, found(program), files)
    said = run(tmp_path, *invocation.argv(is_root=True)).stderr
    assert (PARSED[CLASSIC] if program == CLASSIC else 'cluster "demo" not found') in said


@EACH
def test_a_failed_create_writes_only_a_state_folder_that_destroy_does_not_remove(
    tmp_path: Path, program: str
) -> None:
    """Why remains are removed without talosctl."""
    output(tmp_path, program, ClusterSpec(name="demo", mirrors=MIRRORS))
    assert [path.name for path in tmp_path.iterdir()] == ["stack"]
    files = ClusterFiles(tmp_path / "stack", "demo")
    assert (files.state / "demo").is_dir()

    words = command_line.destroy(Provisioner.DOCKER, found(program), files)
    assert run(tmp_path, *words.argv(is_root=True), "--force").returncode == 1
    assert (files.state / "demo").is_dir()


# Lists of images


@pytest.mark.parametrize(
    ("program", "kubernetes"),
    [
        (CLASSIC, None),
        (SUBCOMMANDS, None),
        (SUBCOMMANDS, "1.35.0"),
        pytest.param(NEWEST, None, marks=newest_talosctl.IF_BUILT),
        pytest.param(NEWEST, "1.36.0", marks=newest_talosctl.IF_BUILT),
    ],
)
def test_images_are_listed(program: str, kubernetes: str | None) -> None:
    listed = images.of_kubernetes(found(program), kubernetes)

    for name in ("ghcr.io/siderolabs/kubelet", "registry.k8s.io/kube-apiserver"):
        assert any(one.startswith(f"{name}:v{kubernetes or ''}") for one in listed)
    assert any("etcd" in name for name in listed)


def test_clusters_are_tested_with_the_images_that_talosctl_lists() -> None:
    talosctl = found(SUBCOMMANDS)
    node = command_line.node_image(ClusterSpec(name="demo"), talosctl.version)
    listed = {node, *images.of_kubernetes(talosctl)}
    # The nodes of those tests have another network than flannel.
    network = {image for image in listed if "flannel" in image or "network-policies" in image}
    assert set(kubernetes_images.names()) == listed - network


@pytest.mark.parametrize("program", SINCE_1_12)
def test_the_image_of_docker_nodes_is_in_the_bundle_of_talos(tmp_path: Path, program: str) -> None:
    talosctl = found(program)
    alone = ("--extensions=false", "--overlays=false")

    listed = run(tmp_path, talosctl.path, "image", "talos-bundle", *alone)

    assert command_line.default_image(talosctl.version) in listed.stdout.splitlines()
    # From 1.14 on, it comes from the Image Factory.
    is_listed = "ghcr.io/siderolabs/installer:" in listed.stdout
    assert is_listed == (images.installer(talosctl.version) is None)


@newest_talosctl.IF_BUILT
def test_the_installer_is_that_of_the_machine_configuration(tmp_path: Path) -> None:
    documents = configured(tmp_path, NEWEST, "machine: {}")

    (install,) = [one for one in documents if one.get("kind") == "UnattendedInstallConfig"]
    assert install["installer"]["image"] == images.installer(found(NEWEST).version)


@EACH
def test_the_image_of_docker_nodes_is_talosctls_own_default(program: str, tmp_path: Path) -> None:
    talosctl = found(program)
    docker = () if program == CLASSIC else ("docker",)
    image = command_line.node_image(ClusterSpec(name="demo"), talosctl.version)

    helped = run(tmp_path, talosctl.path, "cluster", "create", *docker, "--help")
    assert f'(default "{image}")' in helped.stdout


# Patches


def configured(folder: Path, program: str, patch: str, *more: str) -> list[dict[str, Any]]:
    """The documents of a control plane's machine configuration with this patch, validated."""
    file = folder / "patch.yaml"
    file.write_text(patch)
    talosctl = found(program)
    done = run(
        folder,
        *(talosctl.path, "gen", "config", "demo", "https://10.5.0.2:6443"),
        *("--output-dir", str(folder / "out"), "--config-patch", f"@{file}", *more),
    )
    assert done.returncode == 0, done.stderr
    config = folder / "out" / "controlplane.yaml"
    valid = run(folder, talosctl.path, "validate", "--config", str(config), "--mode", "container")
    assert valid.returncode == 0, valid.stderr
    return list(yaml.safe_load_all(config.read_text()))


ALL = {**MIRRORS, "quay.io": CLOSED["docker.io"]}


@EACH
@pytest.mark.parametrize("target", ["v1.11.0", "v1.9.0"])
@pytest.mark.parametrize("skip", [False, True])
def test_the_legacy_form_is_merged_into_the_machine_configuration(
    tmp_path: Path,
    program: str,
    target: str,
    skip: bool,  # noqa: FBT001
) -> None:
    patch = machine_config.mirror_patch(ALL, skip_fallback=skip, form=MirrorForm.LEGACY)
    machine, *_ = configured(tmp_path, program, patch, "--talos-version", target)

    registries = machine["machine"]["registries"]
    assert {host: one["endpoints"] for host, one in registries["mirrors"].items()} == {
        host: [mirror.url] for host, mirror in ALL.items()
    }
    assert {
        host: one.get("skipFallback", False) for host, one in registries["mirrors"].items()
    } == {host: skip and host != "*" for host in ALL}
    (closed,) = registries["config"].values()
    assert b64decode(closed["tls"]["ca"]).decode() == CA
    assert closed["auth"] == {"username": "adam", "password": "s3cret: #1"}


@pytest.mark.parametrize("program", SINCE_1_12)
@pytest.mark.parametrize("skip", [False, True])
def test_documents_are_merged_into_the_machine_configuration(
    tmp_path: Path,
    program: str,
    skip: bool,  # noqa: FBT001
) -> None:
    patch = machine_config.mirror_patch(ALL, skip_fallback=skip, form=MirrorForm.DOCUMENT)
    documents = configured(tmp_path, program, patch)

    mirrors = [each for each in documents if each.get("kind") == "RegistryMirrorConfig"]
    assert {each["name"]: each["endpoints"] for each in mirrors} == {
        host: [{"url": mirror.url}] for host, mirror in ALL.items()
    }
    assert {each["name"]: each.get("skipFallback", False) for each in mirrors} == {
        host: skip and host != "*" for host in ALL
    }
    found = {each["kind"]: each for each in documents if each.get("name") == "172.17.0.1:5000"}
    assert found["RegistryTLSConfig"]["ca"] == CA
    assert found["RegistryAuthConfig"]["username"] == "adam"
    assert found["RegistryAuthConfig"]["password"] == "s3cret: #1"  # noqa: S105
