"""Command lines of talosctl, for each of its versions.

Which version has which flag comes from the source of siderolabs/talos, tags v0.4.0 to v1.14.0-rc.1:
cmd/talosctl/cmd/mgmt/cluster, first create.go, later the folder create/.
"""

import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import yaml

from talos_registry_cache.talos import machine_config
from talos_registry_cache.talos.cluster_files import ClusterFiles
from talos_registry_cache.talos.cluster_spec import (
    DEFAULT_CIDR,
    DEFAULT_NODES,
    ClusterSpec,
    Provisioner,
)
from talos_registry_cache.talos.errors import UnsupportedError
from talos_registry_cache.talos.versions import (
    OLDEST,
    Generation,
    Talosctl,
    Version,
    parse,
    version_range,
)

# The guide has `sudo talosctl …`, and its later editions keep HOME, so that downloads go to the
# user's own folder. KUBECONFIG is needed too, as no flag replaces it.
SUDO = ("sudo", "--non-interactive", "--preserve-env=HOME,KUBECONFIG")

MIRRORS_PATCH = "mirrors.yaml"
LOCAL_REGISTRY_PATCH = "patch-controlplanes-local-registry.yaml"
YAML_PATCHES_SINCE = Version(1, 2)
DESTROY_TIMEOUT_S = 5 * 60.0


@dataclass(frozen=True, slots=True)
class Invocation:
    """A planned run of talosctl: its command line, environment and files.

    Attributes:
        program: path of talosctl.
        words: the subcommand and the flags that the Talos guide would use.
        own_flags: the flags that give the cluster its own name, files and timeout.
        extra_arguments: the user's own arguments, which come last.
        env: variables to add to the environment.
        files: contents of the files that the words refer to, by name in the cluster's folder.
        needs_root: whether only root can run it.
        timeout_s: seconds after which it is ended.
    """

    program: str
    words: tuple[str, ...]
    own_flags: tuple[str, ...]
    extra_arguments: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    needs_root: bool = False
    timeout_s: float = DESTROY_TIMEOUT_S

    def argv(self, *, is_root: bool) -> tuple[str, ...]:
        """The program and its arguments, run by sudo if it needs root and the caller is not."""
        sudo = SUDO if self.needs_root and not is_root else ()
        return (*sudo, self.program, *self.words, *self.own_flags, *self.extra_arguments)

    def line(self, *, is_root: bool) -> str:
        """The command line with its environment, to paste into a shell."""
        env = " ".join(f"{name}={shlex.quote(value)}" for name, value in self.env.items())
        return f"{env} {shlex.join(self.argv(is_root=is_root))}".lstrip()

    def guide_line(self) -> str:
        """The command line as the Talos guide has it, for a cluster of the user's own."""
        sudo = ("sudo",) if self.needs_root else ()
        return shlex.join((*sudo, "talosctl", *self.words, *self.extra_arguments))


def create(spec: ClusterSpec, talosctl: Talosctl, files: ClusterFiles) -> Invocation:
    """Plan `talosctl cluster create`.

    Mirrors are `--registry-mirror` flags, as in the guide, up to talosctl 1.11. They are a patch of
    the machine configuration from 1.12 on, which hides that flag, and whenever the flag cannot
    express them.

    Raises:
        UnsupportedError: this talosctl cannot create the cluster; the message lists all reasons.
    """
    version = talosctl.version
    if problems := list(_unsupported(spec, version)):
        raise UnsupportedError("; ".join(problems))
    patches = dict(_patch_files(spec, version))
    flags = [
        *_mirror_flags(spec, version),
        *_node_flags(spec, version),
        *_version_flags(spec, version),
        *((_patch_flag(name, version), f"@{files.patch(name)}") for name in patches),
    ]
    return Invocation(
        program=talosctl.path,
        words=("cluster", "create", *_provisioner_words(spec, version), *_words(flags)),
        own_flags=(*_name_and_state(files), *_words(_client_flags(spec, version, files))),
        extra_arguments=spec.extra_arguments,
        env={"KUBECONFIG": str(files.kubeconfig)},
        files=patches,
        needs_root=spec.provisioner.is_virtual,
        timeout_s=spec.timeout_s,
    )


def destroy(provisioner: Provisioner, talosctl: Talosctl, files: ClusterFiles) -> Invocation:
    """Plan `talosctl cluster destroy`."""
    reads_state = talosctl.version.generation is Generation.SUBCOMMANDS
    words = ("cluster", "destroy")
    return Invocation(
        program=talosctl.path,
        words=words if reads_state else (*words, "--provisioner", provisioner.value),
        own_flags=_name_and_state(files),
        needs_root=provisioner.is_virtual,
    )


def node_image(spec: ClusterSpec, talosctl: Version) -> str:
    """The image that docker nodes run: the one in the specification, or talosctl's own choice."""
    return spec.image or default_image(target_version(spec, talosctl))


def target_version(spec: ClusterSpec, talosctl: Version) -> Version:
    """The version of Talos on the nodes: as specified, or from the image's tag, or talosctl's."""
    texts = [spec.talos_version or "", _tag(spec.image or "")]
    return next(filter(None, map(parse, texts)), talosctl)


def default_image(talos: Version) -> str:
    """The image that docker nodes with a version of Talos run by default.

    Its repository has moved twice (REGISTRY and USERNAME in the Makefile of each tag).
    """
    if talos < Version(0, 7):
        repository = "docker.io/autonomy"
    elif talos < Version(1, 0):
        repository = "ghcr.io/talos-systems"
    else:
        repository = "ghcr.io/siderolabs"
    return f"{repository}/talos:{talos}"


Flags = Iterator[tuple[str, str | int | None]]


def _words(flags: Iterable[tuple[str, str | int | None]]) -> Iterator[str]:
    """The words of the flags that have a value."""
    for flag, value in flags:
        if value is not None:
            yield from (flag, str(value))


def _name_and_state(files: ClusterFiles) -> tuple[str, ...]:
    return ("--name", files.name, "--state", str(files.state))


def _client_flags(spec: ClusterSpec, version: Version, files: ClusterFiles) -> Flags:
    if version.generation is Generation.SUBCOMMANDS:
        yield "--talosconfig-destination", str(files.talosconfig)
    else:
        yield "--talosconfig", str(files.talosconfig)
        yield "--wait-timeout", f"{spec.timeout_s:g}s"


def _provisioner_words(spec: ClusterSpec, version: Version) -> tuple[str, ...]:
    if version.generation is Generation.SUBCOMMANDS:
        return (spec.provisioner.value,)
    return ("--provisioner", spec.provisioner.value)


def _mirror_flags(spec: ClusterSpec, version: Version) -> Flags:
    if not _mirrors_by_patch(spec, version):
        for host, mirror in spec.mirrors.items():
            yield "--registry-mirror", f"{host}={mirror.url}"


def _node_flags(spec: ClusterSpec, version: Version) -> Flags:
    cpus = None if spec.cpus is None else f"{spec.cpus:g}"
    controlplanes = spec.controlplanes if spec.controlplanes != DEFAULT_NODES else None
    workers = spec.workers if spec.workers != DEFAULT_NODES else None
    cidr = spec.cidr if spec.cidr != DEFAULT_CIDR else None
    if version.generation is Generation.SUBCOMMANDS:
        memory = None if spec.memory_mib is None else f"{spec.memory_mib}MiB"
        if spec.provisioner.is_virtual:
            yield "--controlplanes", controlplanes
        yield "--workers", workers
        yield "--cpus-controlplanes", cpus
        yield "--cpus-workers", cpus
        yield "--memory-controlplanes", memory
        yield "--memory-workers", memory
        yield ("--cidr" if spec.provisioner.is_virtual else "--subnet"), cidr
        yield "--disks", ",".join(spec.disks) or None
        return
    yield ("--masters" if version < Version(1, 2) else "--controlplanes"), controlplanes
    yield "--workers", workers
    yield "--cpus", cpus
    yield "--memory", spec.memory_mib
    if version >= Version(1, 0):
        # Before 1.0 the flags above were for all nodes, since then for control planes.
        yield "--cpus-workers", cpus
        yield "--memory-workers", spec.memory_mib
    yield "--cidr", cidr


def _version_flags(spec: ClusterSpec, version: Version) -> Flags:
    image, talos = spec.image, spec.talos_version
    if talos is not None and spec.provisioner is Provisioner.DOCKER:
        # Nodes run the version of their image, and talosctl reads it from the tag.
        image = node_image(spec, version)
        talos = None if _tag(image) == str(target_version(spec, version)) else talos
    yield "--image", image
    yield "--talos-version", talos
    kubernetes = spec.kubernetes_version
    yield "--kubernetes-version", kubernetes and kubernetes.removeprefix("v")


def _mirrors_by_patch(spec: ClusterSpec, version: Version) -> bool:
    beyond_flag = spec.skip_fallback or spec.has_closed_mirrors
    return version.generation is Generation.SUBCOMMANDS or beyond_flag


def _patch_files(spec: ClusterSpec, version: Version) -> Iterator[tuple[str, str]]:
    if spec.mirrors and _mirrors_by_patch(spec, version):
        # talosctl has to read the patch, and the nodes have to understand the result.
        form = machine_config.form_for(min(version, target_version(spec, version)))
        yield (
            MIRRORS_PATCH,
            machine_config.mirror_patch(spec.mirrors, skip_fallback=spec.skip_fallback, form=form),
        )
    # An older talosctl reads no patch in YAML.
    announced = machine_config.local_registry_patch(spec.mirrors)
    if announced and min(version, target_version(spec, version)) >= YAML_PATCHES_SINCE:
        yield LOCAL_REGISTRY_PATCH, announced
    for kind, patches in _patches(spec).items():
        for number, text in enumerate(patches, start=1):
            yield f"{kind}-{number}.yaml", text


def _patches(spec: ClusterSpec) -> Mapping[str, tuple[str, ...]]:
    return {
        "patch": spec.patches,
        "patch-controlplanes": spec.patches_controlplanes,
        "patch-workers": spec.patches_workers,
    }


def _patch_flag(file: str, version: Version) -> str:
    is_new = version.generation is Generation.SUBCOMMANDS
    if file.startswith("patch-controlplanes-"):
        return "--config-patch-controlplanes" if is_new else "--config-patch-control-plane"
    if file.startswith("patch-workers-"):
        return "--config-patch-workers" if is_new else "--config-patch-worker"
    return "--config-patch"


class _Need(NamedTuple):
    """A feature, whether the specification uses it, and the versions that support it."""

    is_used: bool
    feature: str
    since: Version
    until: Version | None = None

    def is_met_by(self, version: Version) -> bool:
        until = self.until or version
        return self.since <= version and (version.major, version.minor) <= (
            until.major,
            until.minor,
        )


_UNTIL_1_11 = Version(1, 11)


def _unsupported(spec: ClusterSpec, version: Version) -> Iterator[str]:
    """Features that the specification uses and these versions of talosctl and Talos lack."""
    target = target_version(spec, version)
    for need in _needs_of_talosctl(spec):
        if need.is_used and not need.is_met_by(version):
            allowed = version_range(need.since, need.until)
            yield f"talosctl {version} does not support {need.feature}; allowed: talosctl {allowed}"
    for need in _needs_of_talos(spec):
        if need.is_used and not need.is_met_by(min(version, target)):
            allowed = version_range(need.since, need.until)
            yield f"Talos {target} does not support {need.feature}; allowed: Talos {allowed}"
    if spec.image is not None and spec.provisioner.is_virtual:
        yield f"found an image for {spec.provisioner} nodes; allowed: with docker"
    if spec.disks and not spec.provisioner.is_virtual:
        yield "found disks for docker nodes; allowed: with qemu"


def _needs_of_talosctl(spec: ClusterSpec) -> list[_Need]:
    is_virtual = spec.provisioner.is_virtual
    texts = _texts(spec)
    return [
        _Need(spec.provisioner is Provisioner.FIRECRACKER, "firecracker", OLDEST, Version(0, 12)),
        _Need(spec.provisioner is Provisioner.QEMU, "qemu", Version(0, 6)),
        _Need(
            spec.controlplanes > 1 and not is_virtual,
            "more than one control plane on docker",
            OLDEST,
            _UNTIL_1_11,
        ),
        _Need(
            spec.talos_version is not None and is_virtual,
            "talosVersion for virtual machines",
            Version(0, 9),
        ),
        _Need(
            _differs_from_tag(spec) and not is_virtual,
            "a talosVersion other than the image's tag",
            Version(0, 9),
            _UNTIL_1_11,
        ),
        _Need(bool(spec.disks), "disks", Version(1, 12)),
        # Before 1.0, patches could only be given on the command line, where everyone can see them.
        _Need(bool(texts), "patches", Version(1, 0)),
        _Need(not all(map(_is_json_patch, texts)), "patches in YAML", YAML_PATCHES_SINCE),
        # There is no flag for them, and a patch on the command line would show the password.
        _Need(spec.has_closed_mirrors, "mirrors with a CA or password", YAML_PATCHES_SINCE),
    ]


def _needs_of_talos(spec: ClusterSpec) -> list[_Need]:
    """Features that both talosctl and the Talos on the nodes have to support."""
    return [
        # Checked without mirrors too, since settings are checked before the mirrors are known.
        _Need(spec.skip_fallback, "skipFallback", machine_config.SKIP_FALLBACK_SINCE),
        # Since 1.12 a machine configuration has several documents, and JSON patches need one.
        _Need(any(map(_is_json_patch, _texts(spec))), "JSON patches", Version(1, 0), _UNTIL_1_11),
    ]


def _texts(spec: ClusterSpec) -> list[str]:
    return [text for patches in _patches(spec).values() for text in patches]


def _differs_from_tag(spec: ClusterSpec) -> bool:
    if spec.image is None or spec.talos_version is None:
        return False
    return parse(_tag(spec.image)) != parse(spec.talos_version)


def _is_json_patch(patch: str) -> bool:
    try:
        return isinstance(yaml.safe_load(patch), list)
    except yaml.YAMLError:
        # Several documents, or a mistake that talosctl will report.
        return False


def _tag(image: str) -> str:
    return image.partition("@")[0].rpartition("/")[2].rpartition(":")[2]
