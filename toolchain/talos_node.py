"""The file system of a Talos node in a container, assembled from Talos's own module.

The tests boot it on machines that cannot pull `ghcr.io/siderolabs/talos`. The layout is that of the
official image. It lacks the parts that only virtual machines use: kernel, firmware, udev and LVM.
"""

import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from toolchain import debian, golang, layer
from toolchain.paths import CACHE
from toolchain.report import step

TALOS = "github.com/siderolabs/talos"
MACHINERY = f"{TALOS}/pkg/machinery"
CONTAINERD_MODULE = "github.com/containerd/containerd/v2"
CNI = "github.com/containernetworking/plugins"

# The tags are those of Talos's Makefile.
MACHINED, MACHINED_1_11, MACHINED_1_14 = (
    golang.Program(
        name=name,
        package=f"{TALOS}/internal/app/machined",
        module=TALOS,
        tags="tcell_minimal,grpcnotrace",
    )
    for name in ("machined", "machined-1.11", "machined-1.14")
)
CONTAINERD, SHIM = (
    golang.Program(
        name=name,
        package=f"{CONTAINERD_MODULE}/cmd/{name}",
        module=CONTAINERD_MODULE,
        version_symbol=f"{CONTAINERD_MODULE}/version.Version",
        tags="urfave_cli_no_docs,no_btrfs,no_zfs,no_devmapper,grpcnotrace",
        pinned_in="containerd",
    )
    for name in ("containerd", "containerd-shim-runc-v2")
)
CNI_PLUGINS = tuple(
    golang.Program(
        name=package.rpartition("/")[2],
        package=f"{CNI}/plugins/{package}",
        pinned_in="cni-plugins",
    )
    for package in (
        "main/bridge",
        "main/loopback",
        "meta/firewall",
        "meta/portmap",
        "ipam/host-local",
    )
)
PREINIT, RUNC_WRAPPER = (
    golang.Program(name=name, package=f"./{name}", pinned_in="talos-helpers")
    for name in ("talos-preinit", "runc-without-sys-resource")
)
PARTS = (CONTAINERD, SHIM, *CNI_PLUGINS, PREINIT, RUNC_WRAPPER)

ENTRYPOINT = "/usr/libexec/talos-preinit"
FOLDER = CACHE / "talos-node"
# Not on PATH, where the container engine would find containerd.
PROGRAMS = FOLDER / "bin"

FOLDERS = (
    "usr/bin", "usr/lib", "usr/etc", "usr/libexec/kubernetes", "usr/share/spdx",
    "usr/share/zoneinfo/Etc", "usr/local/share", "usr/local/lib/kubelet/credentialproviders",
    "usr/lib/firmware", "usr/lib/modules", "dev", "proc", "sys", "run", "tmp", "root", "home",
    "var", "system", "mnt", "opt/cni/bin", "opt/containerd/bin", "opt/containerd/lib", ".extra",
    "boot/EFI", "etc/iscsi", "etc/nvme", "etc/cri/conf.d/hosts", "etc/containerd", "etc/lvm",
    "etc/kubernetes/manifests", "etc/cni/net.d", "etc/ssl/certs",
    "etc/selinux/targeted/contexts/files",
)  # fmt: skip
# Talos mounts its own files over these.
EMPTY_FILES = (
    "etc/extensions.yaml", "etc/resolv.conf", "etc/hosts", "etc/machine-id",
    "etc/cri/conf.d/cri.toml", "etc/cri/conf.d/01-registries.part",
    "etc/cri/conf.d/20-customization.part", "etc/cri/conf.d/base-spec.json",
    "etc/ssl/certs/ca-certificates.crt", "etc/selinux/targeted/contexts/files/file_contexts",
    "etc/iscsi/initiatorname.iscsi", "etc/nvme/hostid", "etc/nvme/hostnqn",
)  # fmt: skip
LINKS = {
    "bin": "usr/bin",
    "sbin": "usr/bin",
    "usr/sbin": "bin",
    "lib": "usr/lib",
    "lib64": "usr/lib",
    "etc/localtime": "/usr/share/zoneinfo/Etc/UTC",
    "etc/ssl/certs/ca-certificates": "ca-certificates.crt",
    "etc/pki": "/etc/ssl",
    "etc/ca-certificates": "/etc/ssl",
    "usr/share/ca-certificates": "/etc/ssl",
    "usr/local/share/ca-certificates": "/etc/ssl",
}
# The file in hack/ of Talos's module, by the file on the node.
SETTINGS_OF_TALOS = {
    "usr/share/zoneinfo/Etc/UTC": "zoneinfo/Etc/UTC",
    "etc/nfsmount.conf": "nfsmount.conf",
    "etc/containerd/config.toml": "containerd.toml",
    "etc/cri/containerd.toml": "cri-containerd.toml",
    "etc/cri/conf.d/00-base.part": "cri-plugin.part",
    "etc/lvm/lvm.conf": "lvm.conf",
}
# Talos's init runs as each of these, by its name.
NAMES_OF_MACHINED = ("poweroff", "shutdown", "reboot", "dashboard", "sandboxd")
# Debian's runc, and the libraries that it is linked with. Building runc would need a C compiler.
RUNC_FILES = {
    "runc": ("usr/sbin/runc",),
    "libseccomp2": ("**/libseccomp.so.2",),
    # Debian 13 has all libraries below /usr.
    "libc6": ("**/libc.so.6", "**/ld-linux-*.so.*"),
}
# nft and its libraries, for the network of pods.
NFT_FILES = {
    "nftables": ("usr/sbin/nft",),
    **dict.fromkeys(
        (
            "libnftables1", "libnftnl11", "libmnl0", "libxtables12", "libgmp10", "libjansson4",
            "libedit2", "libtinfo6", "libbsd0", "libmd0",
        ),
        ("**/*.so.*",),
    ),
    "libc6": ("**/libc.so.6", "**/libm.so.6", "**/ld-linux-*.so.*"),
}  # fmt: skip
# The network of the pods on one node. Other nodes see the address of that node. No package registry
# has flannel's plugin.
POD_NETWORK = b"""\
{"cniVersion": "1.0.0", "name": "bridge", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isDefaultGateway": true, "hairpinMode": true,
   "ipMasq": true, "ipMasqBackend": "nftables",
   "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.244.0.0/24"}]]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}
]}
"""


def image(machined: golang.Program = MACHINED) -> str:
    """Return the reference of the official image of this version."""
    return f"ghcr.io/siderolabs/talos:{machined.version}"


def layer_of(machined: golang.Program = MACHINED) -> Path:
    """Return the path of a node's file system, a tar."""
    return FOLDER / f"{machined.name}.tar"


def ensure(machined: golang.Program = MACHINED) -> Path:
    """Build a node's programs and assemble its file system, unless they exist; return a tar.

    Args:
        machined: Talos itself, in one of its versions.
    """
    programs = {one.name: golang.ensure(one, PROGRAMS) for one in (machined, *PARTS)}
    newest = max(path.stat().st_mtime for path in (*programs.values(), Path(__file__)))
    finished = layer_of(machined)
    if finished.exists() and finished.stat().st_mtime >= newest:
        return finished
    with step(f"file system of a Talos {machined.version} node"):
        partial = finished.with_suffix(".partial")
        with tarfile.open(partial, "w") as tar:
            _write(tar, machined, programs)
        partial.replace(finished)
    return finished


def _write(tar: tarfile.TarFile, machined: golang.Program, programs: dict[str, Path]) -> None:
    for folder in layer.with_parents(FOLDERS):
        layer.add_folder(tar, folder, mode=0o1777 if folder == "tmp" else 0o755)
    for name, target in LINKS.items():
        layer.add_link(tar, name, target)
    init = {"usr/bin/init": programs[machined.name]}
    for name, path in {**init, **_executables(programs), **_runc(), **nft()}.items():
        layer.add_file(tar, name, path.read_bytes(), 0o755)
    for name in NAMES_OF_MACHINED:
        layer.add_link(tar, f"usr/bin/{name}", "usr/bin/init", kind=tarfile.LNKTYPE)
    for name, content in _settings(machined):
        layer.add_file(tar, name, content, 0o644)


def _executables(programs: dict[str, Path]) -> dict[str, Path]:
    return {
        "usr/bin/containerd": programs[CONTAINERD.name],
        "usr/bin/containerd-shim-runc-v2": programs[SHIM.name],
        "usr/bin/runc": programs[RUNC_WRAPPER.name],
        "usr/libexec/talos-preinit": programs[PREINIT.name],
        **{f"opt/cni/bin/{plugin.name}": programs[plugin.name] for plugin in CNI_PLUGINS},
    }


def nft() -> dict[str, Path]:
    """Return nft and its libraries, by their paths in an image."""
    return _debian_files(NFT_FILES, programs={"nft": "bin"})


def _runc() -> dict[str, Path]:
    return _debian_files(RUNC_FILES, programs={"runc": "libexec"})


def _debian_files(
    wanted: Mapping[str, tuple[str, ...]], programs: Mapping[str, str]
) -> dict[str, Path]:
    """Return programs and their libraries, which the loader finds in /usr/lib."""
    return {
        f"usr/{programs.get(name, 'lib')}/{name}": path
        for package, patterns in wanted.items()
        for name, path in debian.files(package, *patterns).items()
    }


def _settings(machined: golang.Program) -> Iterator[tuple[str, bytes]]:
    talos = golang.module_folder(machined, TALOS)
    for name, file in SETTINGS_OF_TALOS.items():
        yield name, (talos / "hack" / file).read_bytes()
    machinery = golang.module_folder(machined, MACHINERY)
    yield "etc/os-release", (machinery / "version" / "os-release").read_bytes()
    yield "etc/cni/net.d/10-bridge.conflist", POD_NETWORK
    yield "usr/etc/in-container", b"true\n"
    yield from ((name, b"") for name in EMPTY_FILES)
