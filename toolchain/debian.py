"""Debian packages that are unpacked but not installed."""

import functools
import itertools
import os
import re
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from toolchain.paths import CACHE
from toolchain.report import SetupError, run


def unpacked(package: str, suite: str = "") -> Path:
    """Return a folder of this checkout with the files of a package; download it if necessary.

    Args:
        package: its name.
        suite: a suite of the machine's archive, if not the machine's own.

    Raises:
        SetupError: this is not Debian or Ubuntu, or the package cannot be downloaded.
    """
    folder = CACHE / "debian" / package
    if folder.exists():
        return folder
    _require_tools(package)
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    options = _update_suite(suite) if suite else _update_lists()
    _unpack([package], partial, options)
    partial.rename(folder)
    return folder


def unpack_with_dependencies(package: str, folder: Path) -> str:
    """Download a package and all it depends on, unpack them into a folder, and return its version.

    Raises:
        SetupError: this is not Debian or Ubuntu, or a package cannot be downloaded.
    """
    _require_tools(package)
    _update_lists()
    # As on a machine without any package.
    versions = _to_install(package, options=["--option=Dir::State::status=/dev/null"])
    _unpack(versions, folder)
    return versions[package]


def missing(*packages: str) -> list[str]:
    """Return those of the packages, and of what they depend on, that are not installed.

    Raises:
        SetupError: a package is unknown.
    """
    _update_lists()
    return list(_to_install(*packages))


def busybox() -> Path:
    """Return a static busybox.

    Raises:
        SetupError: the package cannot be unpacked.
    """
    return files("busybox-static", "bin/busybox", "usr/bin/busybox")["busybox"]


def _require_tools(package: str) -> None:
    missing = [tool for tool in ("apt-get", "dpkg-deb") if not shutil.which(tool)]
    if missing:
        raise SetupError(
            f"unpacking {package} needs {' and '.join(missing)}, which Debian and Ubuntu have"
        )


def _to_install(*packages: str, options: Sequence[str] = ()) -> dict[str, str]:
    """Return the versions of packages and their dependencies, of those that are not installed."""
    simulate = ["apt-get", "install", "--simulate", "--quiet=2", "--no-install-recommends"]
    printed = run([*simulate, *options, *packages])
    return dict(re.findall(r"^Inst (\S+).*?\(([^\s)]+)", printed, re.MULTILINE))


def _unpack(packages: Iterable[str], folder: Path, options: Iterable[str] = ()) -> None:
    run(["apt-get", *options, "download", "--quiet=2", *packages], cwd=folder)
    for archive in list(folder.glob("*.deb")):
        run(["dpkg-deb", "--extract", archive, folder])
        archive.unlink()


@functools.cache
def _update_lists() -> tuple[str, ...]:
    if os.geteuid() == 0:
        run(["apt-get", "update", "--quiet=2"])
    return ()


@functools.cache
def _update_suite(suite: str) -> tuple[str, ...]:
    """Fetch the lists of another suite, and return the options with which apt-get uses it."""
    folder = CACHE / "debian-suites" / suite
    for name in ("lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    targets = run(["apt-get", "indextargets", "--format", "$(SITE)", "Label: Debian"])
    site = targets.split()[0]
    sources = folder / "sources.list"
    sources.write_text(f"deb {site} {suite} main\n")
    options = (
        f"--option=Dir::Etc::SourceList={sources}",
        "--option=Dir::Etc::SourceParts=/dev/null",
        f"--option=Dir::State::Lists={folder / 'lists'}",
        f"--option=Dir::Cache={folder / 'cache'}",
    )
    run(["apt-get", *options, "update", "--quiet=2"])
    return options


def files(package: str, *patterns: str) -> dict[str, Path]:
    """Return the files of a package that match one of the patterns, by their names.

    Links are followed. Absolute links, which lead to files of this machine, are left out.

    Raises:
        SetupError: the package cannot be unpacked.
    """
    folder = unpacked(package).resolve()
    found = itertools.chain.from_iterable(map(folder.glob, patterns))
    return {
        path.name: path.resolve()
        for path in found
        if path.resolve().is_relative_to(folder) and path.is_file()
    }
