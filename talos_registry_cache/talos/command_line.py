"""The command lines of talosctl, for every generation of it.

Which flag there is in which version comes from the source of siderolabs/talos, the tags v0.4.0 to
v1.14.0-rc.1: cmd/talosctl/cmd/mgmt/cluster, create.go at first, later the folder create/.
"""

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import yaml

from talos_registry_cache.talos import machine_config
from talos_registry_cache.talos.cluster_files import Places
from talos_registry_cache.talos.cluster_spec import ClusterSpec, Provisioner
from talos_registry_cache.talos.errors import UnsupportedError
from talos_registry_cache.talos.versions import (
    OLDEST,
    Generation,
    Talosctl,
    Version,
    in_words,
    parse,
)

# The guide types `sudo talosctl …`; its later editions keep HOME, so that what is downloaded goes
# to the user's own folder. KUBECONFIG has to get through as well, as there is no flag for it.
SUDO = ("sudo", "--non-interactive", "--preserve-env=HOME,KUBECONFIG")

MIRRORS_PATCH = "mirrors.yaml"


@dataclass(frozen=True, slots=True)
class Invocation:
    """One command line of talosctl, with what has to be there before it runs.

    Attributes:
        program: path of talosctl.
        words: the words that the guide would have a person type, without the program.
        places: the flags that keep this cluster apart from others, which come after them.
        extra: words of the user's own, which come last.
        env: what is added to the environment.
        files: content of the files that the words refer to, by name within the cluster's folder.
        needs_root: whether only root can do it.
    """

    program: str
    words: tuple[str, ...]
    places: tuple[str, ...]
    extra: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    needs_root: bool = False

    def argv(self, *, is_root: bool) -> tuple[str, ...]:
        """The program and its arguments, through sudo where that is needed.

        Args:
            is_root: whether we are root.
        """
        sudo = SUDO if self.needs_root and not is_root else ()
        return (*sudo, self.program, *self.words, *self.places, *self.extra)

    def guide_line(self) -> str:
        """The line as the guide has it: what a person would type for a cluster of their own."""
        sudo = ("sudo",) if self.needs_root else ()
        return shlex.join((*sudo, "talosctl", *self.words, *self.extra))

    def line(self, *, is_root: bool) -> str:
        """The line that is run, ready to paste into a shell.

        Args:
            is_root: whether we are root.
        """
        env = " ".join(f"{name}={shlex.quote(value)}" for name, value in self.env.items())
        return f"{env} {shlex.join(self.argv(is_root=is_root))}".lstrip()


def create(spec: ClusterSpec, talosctl: Talosctl, places: Places) -> Invocation:
    """The command line that creates a cluster.

    What is left to talosctl's default emits no flag. Mirrors are the flags of the guide as long
    as `--registry-mirror` is documented, up to 1.11, and a patch of the machine configuration,
    the form that is documented, after that; and where the flag cannot say what is wanted.

    Raises:
        UnsupportedError: this version of talosctl cannot do what is wanted; the message lists all
            that it cannot.
    """
    version = talosctl.version
    problems = list(_unsupported(spec, version))
    if problems:
        raise UnsupportedError(f"cluster {spec.name}: {'; '.join(problems)}")
    files = dict(_patch_files(spec, version))
    patches = [(_patch_flag(name, version), f"@{places.patch(name)}") for name in files]
    flags = [
        *_mirror_flags(spec, version),
        *_node_flags(spec, version),
        *_version_flags(spec, version),
        *patches,
    ]
    words = ["cluster", "create", *_provisioner_words(spec, version)]
    words += [word for flag, value in flags if value is not None for word in (flag, str(value))]
    destination = (
        "--talosconfig-destination"
        if version.generation is Generation.SUBCOMMANDS
        else "--talosconfig"
    )
    return Invocation(
        program=talosctl.path,
        words=tuple(words),
        places=(*_own(places), destination, str(places.talosconfig)),
        extra=spec.extra_arguments,
        env={"KUBECONFIG": str(places.kubeconfig)},
        files=files,
        needs_root=spec.provisioner.is_virtual,
    )


def destroy(provisioner: Provisioner, talosctl: Talosctl, places: Places) -> Invocation:
    """The command line that destroys a cluster."""
    is_told = talosctl.version.generation is Generation.SUBCOMMANDS
    words = ("cluster", "destroy")
    return Invocation(
        program=talosctl.path,
        words=words if is_told else (*words, "--provisioner", provisioner.value),
        places=_own(places),
        needs_root=provisioner.is_virtual,
    )


def node_image(talos: Version) -> str:
    """The image that docker nodes of this version of Talos run.

    Its repository has moved twice (REGISTRY and USERNAME in the Makefile of each tag).
    """
    if talos < Version(0, 7):
        repository = "docker.io/autonomy"
    elif talos < Version(1, 0):
        repository = "ghcr.io/talos-systems"
    else:
        repository = "ghcr.io/siderolabs"
    return f"{repository}/talos:{talos}"


def target_version(spec: ClusterSpec, talosctl: Version) -> Version:
    """The version of Talos that the nodes run: as set, or by the image's tag, or talosctl's."""
    texts = [spec.talos_version or "", _tag(spec.image or "")]
    return next(filter(None, map(parse, texts)), talosctl)


def _own(places: Places) -> tuple[str, ...]:
    return ("--name", places.name, "--state", str(places.state))


def _provisioner_words(spec: ClusterSpec, version: Version) -> tuple[str, ...]:
    if version.generation is Generation.SUBCOMMANDS:
        return (spec.provisioner.value,)
    return ("--provisioner", spec.provisioner.value)


Flags = Iterator[tuple[str, str | int | None]]


def _mirror_flags(spec: ClusterSpec, version: Version) -> Flags:
    if not _mirrors_by_patch(spec, version):
        for host, mirror in spec.mirrors.items():
            yield "--registry-mirror", f"{host}={mirror.url}"


def _node_flags(spec: ClusterSpec, version: Version) -> Flags:
    cpus = None if spec.cpus is None else f"{spec.cpus:g}"
    if version.generation is Generation.SUBCOMMANDS:
        memory = None if spec.memory_mib is None else f"{spec.memory_mib}MiB"
        if spec.provisioner.is_virtual:
            yield "--controlplanes", spec.controlplanes
        yield "--workers", spec.workers
        yield "--cpus-controlplanes", cpus
        yield "--cpus-workers", cpus
        yield "--memory-controlplanes", memory
        yield "--memory-workers", memory
        yield ("--cidr" if spec.provisioner.is_virtual else "--subnet"), spec.cidr
        yield "--disks", ",".join(spec.disks) or None
        return
    yield ("--masters" if version < Version(1, 2) else "--controlplanes"), spec.controlplanes
    yield "--workers", spec.workers
    yield "--cpus", cpus
    yield "--memory", spec.memory_mib
    if version >= Version(1, 0):
        # Until then the flags above were for all nodes, from then on for control planes.
        yield "--cpus-workers", cpus
        yield "--memory-workers", spec.memory_mib
    yield "--cidr", spec.cidr


def _version_flags(spec: ClusterSpec, version: Version) -> Flags:
    image, talos = spec.image, spec.talos_version
    if talos is not None and spec.provisioner is Provisioner.DOCKER:
        # The nodes' version is that of their image, and talosctl goes by its tag.
        image = image or node_image(target_version(spec, version))
        talos = None if _tag(image) == str(target_version(spec, version)) else talos
    yield "--image", image
    yield "--talos-version", talos
    kubernetes = spec.kubernetes_version
    yield "--kubernetes-version", kubernetes and kubernetes.removeprefix("v")
    if version.generation is not Generation.SUBCOMMANDS and spec.timeout_s is not None:
        yield "--wait-timeout", f"{spec.timeout_s:g}s"


def _mirrors_by_patch(spec: ClusterSpec, version: Version) -> bool:
    is_more = spec.skip_fallback or _is_closed(spec)
    return version.generation is Generation.SUBCOMMANDS or is_more


def _is_closed(spec: ClusterSpec) -> bool:
    return any(mirror.is_closed for mirror in spec.mirrors.values())


def _patch_files(spec: ClusterSpec, version: Version) -> Iterator[tuple[str, str]]:
    if spec.mirrors and _mirrors_by_patch(spec, version):
        # The form has to be known to both: talosctl reads it, the nodes get it.
        form = machine_config.form_for(min(version, target_version(spec, version)))
        yield (
            MIRRORS_PATCH,
            machine_config.mirror_patch(spec.mirrors, skip_fallback=spec.skip_fallback, form=form),
        )
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
    """Something that is wanted or not, and the versions that have it."""

    is_wanted: bool
    what: str
    since: Version
    until: Version | None = None


_OPERATIONS = "a list of JSON patch operations"
_THAT_DO = "versions that do:"
_UNTIL_1_11 = Version(1, 11)


def _unsupported(spec: ClusterSpec, version: Version) -> Iterator[str]:
    """What is wanted and this version does not have, each with the versions that do."""
    is_virtual = spec.provisioner.is_virtual
    for need in _of_talosctl(spec):
        if need.is_wanted and not _has(version, need.since, need.until):
            versions = in_words(need.since, need.until)
            yield f"talosctl {version} has no {need.what}; {_THAT_DO} {versions}"
    target = target_version(spec, version)
    for need in _of_talos(spec):
        if need.is_wanted and not _has(min(version, target), need.since, need.until):
            versions = in_words(need.since, need.until)
            yield f"Talos {target} has no {need.what}; {_THAT_DO} {versions}"
    if spec.image is not None and is_virtual:
        yield f"{spec.provisioner} nodes run no image; allowed: with docker"
    if spec.disks and not is_virtual:
        yield "docker nodes have no disks; allowed: with qemu"


def _of_talosctl(spec: ClusterSpec) -> list[_Need]:
    is_virtual = spec.provisioner.is_virtual
    is_firecracker = spec.provisioner is Provisioner.FIRECRACKER
    several = spec.wanted_nodes["controlplane"] > 1
    talos = spec.talos_version is not None
    texts = _texts(spec)
    return [
        _Need(is_firecracker, "firecracker", OLDEST, Version(0, 12)),
        _Need(spec.provisioner is Provisioner.QEMU, "qemu", Version(0, 6)),
        _Need(
            several and not is_virtual,
            "more than one control plane on docker",
            OLDEST,
            _UNTIL_1_11,
        ),
        _Need(talos and is_virtual, "talos_version of virtual machines", Version(0, 9)),
        _Need(
            _differs(spec) and not is_virtual,
            "talos_version that is not the image's tag",
            Version(0, 9),
            _UNTIL_1_11,
        ),
        _Need(bool(spec.disks), "disks", Version(1, 12)),
        # Before, a patch could be given in the command line only, where everybody can see it.
        _Need(bool(texts), "patches", Version(1, 0)),
        _Need(
            not all(map(_is_operations, texts)),
            f"patches that are not {_OPERATIONS}",
            Version(1, 2),
        ),
        # No flag has them, and a patch in the command line would show the password.
        _Need(_is_closed(spec), "CA or password of mirrors", Version(1, 2)),
    ]


def _of_talos(spec: ClusterSpec) -> list[_Need]:
    """What talosctl and the nodes both have to know."""
    return [
        # Without mirrors too: a stack's settings are checked before it is known which it has.
        _Need(spec.skip_fallback, "skip_fallback", machine_config.SKIP_FALLBACK_SINCE),
        # From 1.12 on a machine configuration has several documents, and these work on one.
        _Need(
            any(map(_is_operations, _texts(spec))),
            f"patches that are {_OPERATIONS}",
            Version(1, 0),
            _UNTIL_1_11,
        ),
    ]


def _texts(spec: ClusterSpec) -> list[str]:
    return [text for patches in _patches(spec).values() for text in patches]


def _has(version: Version, since: Version, until: Version | None) -> bool:
    within = until is None or (version.major, version.minor) <= (until.major, until.minor)
    return since <= version and within


def _differs(spec: ClusterSpec) -> bool:
    if spec.image is None or spec.talos_version is None:
        return False
    return parse(_tag(spec.image)) != parse(spec.talos_version)


def _is_operations(patch: str) -> bool:
    try:
        return isinstance(yaml.safe_load(patch), list)
    except yaml.YAMLError:
        # Several documents, or what talosctl is to complain about.
        return False


def _tag(image: str) -> str:
    return image.partition("@")[0].rpartition("/")[2].rpartition(":")[2]
