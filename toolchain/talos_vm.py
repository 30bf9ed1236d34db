"""What `talosctl cluster create qemu` needs to boot Talos in a virtual machine.

Built from the parts of the node image, and from Debian's packages, which are unpacked and not
installed: QEMU, its firmware, a kernel, and the programs that only machines with disks use.
Talos 1.13 needs Linux 6.15 or later, which Debian 13 has in its backports.
"""

import lzma
import os
import platform
import shutil
import subprocess
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from toolchain import debian, golang, layer, talos_node
from toolchain.paths import CACHE
from toolchain.report import SetupError, step

# The series of the kernel that Talos 1.13 has.
KERNEL_PACKAGE = "linux-image-6.18.15+deb13-cloud-amd64"
KERNEL_SUITE = "trixie-backports"

# Packages of other versions have other libraries.
SUPPORTED = ("debian", "12", "x86_64")

INIT = golang.Program(
    name="talos-init",
    package=f"{talos_node.TALOS}/internal/app/init",
    module=talos_node.TALOS,
    tags=talos_node.MACHINED.tags,
    pinned_in="machined",
)
STATIC, TAP = (
    golang.Program(name=name, package=package, pinned_in="cni-plugins")
    for name, package in (
        ("static", f"{talos_node.CNI}/plugins/ipam/static"),
        ("tc-redirect-tap", "./tc-redirect-tap"),
    )
)
HOST_PLUGINS = (
    *(plugin for plugin in talos_node.CNI_PLUGINS if plugin.name in ("bridge", "firewall")),
    STATIC,
    TAP,
)

FOLDER = CACHE / "talos-vm"
# An upper layer for /usr, as if the packages were installed.
USR = FOLDER / "usr"
# talosctl looks in the home folder for CNI plugins and downloaded images.
HOME = FOLDER / "home"
CNI = HOME / ".talos" / "cni" / "bin"
DOWNLOADS = HOME / ".talos" / "cache"

# Packages that run virtual machines, and those that build the disk.
HOST_PACKAGES = (
    "qemu-system-x86", "ovmf", "cpio", "fdisk", "kmod", "mtools", "squashfs-tools",
    "systemd-boot-efi", "zstd",
)  # fmt: skip
# Programs of machines with disks, and the libraries that they are linked with.
NODE_FILES = {
    "udev": ("bin/udevadm", "lib/udev/rules.d/*"),
    "xfsprogs": ("sbin/mkfs.xfs", "sbin/xfs_repair", "usr/sbin/xfs_growfs"),
    "libc6": ("**/libc.so.6", "**/libm.so.6", "**/ld-linux-*.so.*"),
    **dict.fromkeys(
        (
            "libacl1", "libblkid1", "libcap2", "libinih1", "libkmod2", "liblzma5", "libpcre2-8-0",
            "libselinux1", "libssl3", "liburcu8", "libuuid1", "libzstd1",
        ),
        ("**/*.so.*",),
    ),
}  # fmt: skip
RULES = ".rules"

# Built into the kernel of Talos, and loaded before its init starts.
MODULES = (
    "configfs", "pstore", "efivarfs", "virtio_net", "virtio_blk", "virtio_rng", "loop", "squashfs",
    "overlay", "xfs", "vfat", "nls_ascii", "nls_cp437", "tun", "bridge", "br_netfilter", "veth",
    "dummy", "vxlan", "nf_tables", "nft_compat", "nft_chain_nat", "nft_ct", "nft_masq", "nft_nat",
    "nft_reject_inet", "nft_redir", "nft_log", "nft_limit", "nft_numgen", "nft_hash",
    "nft_fib_inet", "xt_conntrack", "xt_comment", "xt_mark", "xt_MASQUERADE", "dm_mod",
)  # fmt: skip
# Talos and the kubelet refuse to start without some of them; the others are those of talosctl.
KERNEL_ARGUMENTS = (
    "talos.platform=metal console=ttyS0 init_on_alloc=1 slab_nomerge pti=on consoleblank=0 "
    "printk.devkmsg=on module.sig_enforce=1 panic=1 oops=panic reboot=k talos.shutdown=halt "
    "talos.dashboard.disabled=1"
)
# Talos formats with the options of its kernel's time, by a file that Debian 12 lacks.
XFS_OPTIONS = "usr/share/xfsprogs/mkfs/lts_6.18.conf"
XFS_FEATURES = b"[metadata]\ncrc=1\nfinobt=1\nreflink=1\n[inode]\nsparse=1\n"
# The ID of an image without extensions at the image factory (cmd/talosctl/cmd/constants).
SCHEMATIC = "376567988ad370138ad8b2698212367b8edcb69b5fd68c80be1f2ec7d603b4ba"
PARTITIONS = """\
label: gpt
start=2048, size=300M, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, name=EFI
size=1M, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4, name=META
"""
ESP_OFFSET = 2048 * 512
DISK_SIZE = 400 << 20


def image() -> Path:
    """The disk image, under the name by which talosctl finds a downloaded one."""
    version = talos_node.MACHINED.version
    url = f"https://factory.talos.dev/image/{SCHEMATIC}/{version}/metal-amd64.raw.zst"
    return DOWNLOADS / url.replace("/", "-").replace(":", "-")


def why_impossible() -> str:
    """Why this machine cannot build it; empty if it can."""
    release = platform.freedesktop_os_release()
    found = (release.get("ID"), release.get("VERSION_ID"), platform.machine())
    if found != SUPPORTED:
        return f"virtual machines are built on {' '.join(SUPPORTED)} only"
    return ""


def ensure() -> None:
    """Build the disk image, and unpack what runs it, unless they exist.

    Raises:
        SetupError: a package cannot be unpacked, or a program cannot be built or run.
    """
    for plugin in HOST_PLUGINS:
        golang.ensure(plugin, CNI)
    init = golang.ensure(INIT, talos_node.PROGRAMS)
    node = talos_node.ensure()
    if not USR.exists():
        with step("QEMU and the tools for disks, from Debian's packages"):
            _unpack_host_packages()
    newest = max(path.stat().st_mtime for path in (init, node, Path(__file__)))
    if image().exists() and image().stat().st_mtime >= newest:
        return
    with step("disk image of a Talos node"):
        shutil.rmtree(FOLDER / "build", ignore_errors=True)
        _build(FOLDER / "build", init, node)
        shutil.rmtree(FOLDER / "build")


def _unpack_host_packages() -> None:
    partial = USR.with_name("usr.partial")
    shutil.rmtree(partial, ignore_errors=True)
    for package in debian.missing(*HOST_PACKAGES):
        folder = debian.unpacked(package)
        # In Debian 12, some packages have files outside /usr, where only links are left.
        for source in (folder / name for name in ("usr", "bin", "lib", "sbin")):
            if source.is_dir():
                into = partial if source.name == "usr" else partial / source.name
                shutil.copytree(source, into, symlinks=True, dirs_exist_ok=True)
    partial.rename(USR)


def _build(folder: Path, init: Path, node: Path) -> None:
    folder.mkdir(parents=True)
    kernel = debian.unpacked(KERNEL_PACKAGE, suite=KERNEL_SUITE)
    (modules,) = (kernel / "usr" / "lib" / "modules").iterdir()
    _tool("kmod", "-b", kernel / "usr", modules.name, name="depmod")
    _write_root(folder / "root.tar", node, modules)
    start = folder / "initramfs"
    (start / "modules").mkdir(parents=True)
    root = folder / "root.tar"
    _tool("sqfstar", "-comp", "lz4", "-quiet", "-no-progress", start / "rootfs.sqsh", stdin=root)
    _write_initramfs(start, init, modules)
    (boot,) = (kernel / "boot").glob("vmlinuz-*")
    _write_disk(folder, boot, folder / "initramfs.cpio")


def _write_root(path: Path, node: Path, modules: Path) -> None:
    """Write the node's file system without what is for containers, and with what is for disks."""
    added = {name: path.read_bytes() for name, path in _node_files()}
    for file in modules.glob("modules.*"):
        added[f"usr/lib/modules/{modules.name}/{file.name}"] = file.read_bytes()
    added[XFS_OPTIONS] = XFS_FEATURES
    with tarfile.open(node) as source, tarfile.open(path, "w") as tar:
        present: set[str] = set()
        for entry in source:
            if entry.name not in {*added, "usr/etc/in-container"}:
                tar.addfile(entry, source.extractfile(entry) if entry.isreg() else None)
                present.add(entry.name)
        for parent in sorted({str(one) for name in added for one in Path(name).parents}):
            if parent not in {*present, "."}:
                layer.add_folder(tar, parent)
        for name, content in added.items():
            layer.add_file(tar, name, content, 0o755)


def _node_files() -> Iterator[tuple[str, Path]]:
    for package, patterns in NODE_FILES.items():
        for name, path in debian.files(package, *patterns).items():
            if name.endswith(RULES):
                yield f"usr/lib/udev/rules.d/{name}", path
            else:
                yield f"usr/{'lib' if '.so.' in name else 'bin'}/{name}", path
    # The same program by another name.
    yield "usr/bin/systemd-udevd", debian.unpacked("udev") / "bin" / "udevadm"


def _closure(modules: Path, wanted: Iterable[str]) -> list[str]:
    """Return the paths of modules and of what they need, in the order in which they load.

    A wanted module that is built into the kernel is left out.
    """
    lines = (modules / "modules.dep").read_text().splitlines()
    needs = {path: needed.split() for path, _, needed in (line.partition(":") for line in lines)}
    named = {Path(path).name.partition(".")[0].replace("-", "_"): path for path in needs}
    order: dict[str, None] = {}

    def add(path: str) -> None:
        for needed in reversed(needs[path]):
            add(needed)
        order.setdefault(path)

    for name in wanted:
        if name in named:
            add(named[name])
    return list(order)


def _write_initramfs(folder: Path, init: Path, modules: Path) -> None:
    script = ["#!/busybox sh"]
    for path in _closure(modules, MODULES):
        name = Path(path).name.removesuffix(".xz")
        (folder / "modules" / name).write_bytes(lzma.decompress((modules / path).read_bytes()))
        script.append(f"/busybox insmod /modules/{name}")
    script.append("exec /talos-init")
    (folder / "init").write_text("\n".join(script) + "\n")
    (folder / "init").chmod(0o755)
    shutil.copy(init, folder / "talos-init")
    shutil.copy(debian.busybox(), folder)
    for name in ("dev", "proc", "root", "run", "sys", "tmp"):
        (folder / name).mkdir()
    names = folder.with_suffix(".names")
    names.write_text("\n".join(str(one.relative_to(folder)) for one in sorted(folder.rglob("*"))))
    archive = f"--file={folder.with_suffix('.cpio')}"
    options = ("--create", "--format=newc", "--owner=0:0", "--quiet", archive)
    _tool("cpio", *options, stdin=names, cwd=folder)


def _write_disk(folder: Path, kernel: Path, initramfs: Path) -> None:
    """Write a disk from which UEFI boots, with the partition that tells Talos it is installed."""
    disk = folder / "disk.raw"
    with disk.open("wb") as file:
        file.truncate(DISK_SIZE)
    partitions, loader, entry = (folder / name for name in ("partitions", "loader", "entry"))
    partitions.write_text(PARTITIONS)
    _tool("sfdisk", "--quiet", disk, stdin=partitions)
    loader.write_text("timeout 0\n")
    entry.write_text(
        f"title Talos\nlinux /vmlinuz\ninitrd /initramfs\noptions {KERNEL_ARGUMENTS}\n"
    )
    esp = f"{disk}@@{ESP_OFFSET}"
    _tool("mformat", "-i", esp, "-F", "-T", "614400", "-h", "64", "-s", "32", "::")
    _tool("mmd", "-i", esp, "::/EFI", "::/EFI/BOOT", "::/loader", "::/loader/entries")
    for source, target in (
        (USR / "lib/systemd/boot/efi/systemd-bootx64.efi", "EFI/BOOT/BOOTX64.EFI"),
        (kernel, "vmlinuz"),
        (initramfs, "initramfs"),
        (loader, "loader/loader.conf"),
        (entry, "loader/entries/talos.conf"),
    ):
        _tool("mcopy", "-i", esp, source, f"::/{target}")
    DOWNLOADS.mkdir(parents=True, exist_ok=True)
    _tool("zstd", "--quiet", "--force", "-1", disk, "-o", image())


def _tool(
    program: str,
    *arguments: str | Path,
    name: str = "",
    stdin: Path = Path(os.devnull),
    cwd: Path | None = None,
) -> None:
    """Run an unpacked program.

    Args:
        program: its file name.
        arguments: its arguments.
        name: the name by which it is called, if that differs.
        stdin: the file that it reads.
        cwd: its working directory.

    Raises:
        SetupError: it failed.
    """
    path = f"{USR}/bin:{USR}/sbin:{os.environ['PATH']}"
    found = shutil.which(program, path=path)
    if found is None:
        raise SetupError(f"there is no {program} in the packages {', '.join(HOST_PACKAGES)}")
    libraries = f"{USR}/lib/{os.uname().machine}-linux-gnu"
    with stdin.open("rb") as file:
        done = subprocess.run(
            [name or program, *arguments],
            executable=found,
            env=os.environ | {"PATH": path, "LD_LIBRARY_PATH": libraries},
            cwd=cwd,
            stdin=file,
            capture_output=True,
            check=False,
        )
    if done.returncode:
        raise SetupError(f"{program} failed: {done.stderr.decode().strip()}")
