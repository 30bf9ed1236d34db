"""Debian packages that are unpacked but not installed."""

import functools
import itertools
import os
import shutil
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
    missing = [tool for tool in ("apt-get", "dpkg-deb") if not shutil.which(tool)]
    if missing:
        raise SetupError(
            f"unpacking {package} needs {' and '.join(missing)}, which Debian and Ubuntu have"
        )
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    options = _update_suite(suite) if suite else _update_lists()
    run(["apt-get", *options, "download", "--quiet=2", package], cwd=partial)
    (archive,) = partial.glob(f"{package}_*.deb")
    run(["dpkg-deb", "--extract", archive, partial])
    archive.unlink()
    partial.rename(folder)
    return folder


def missing(*packages: str) -> list[str]:
    """Return those of the packages, and of what they depend on, that are not installed.

    Raises:
        SetupError: a package is unknown.
    """
    _update_lists()
    simulate = ["apt-get", "install", "--simulate", "--quiet=2", "--no-install-recommends"]
    lines = run([*simulate, *packages]).splitlines()
    return [line.split()[1] for line in lines if line.startswith("Inst ")]


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
