"""Debian packages that are unpacked but not installed."""

import functools
import itertools
import os
import shutil
from pathlib import Path

from toolchain.paths import CACHE
from toolchain.report import SetupError, run


def unpacked(package: str) -> Path:
    """Return a folder of this checkout with the files of a package; download it if necessary.

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
    _update_lists()
    run(["apt-get", "download", "--quiet=2", package], cwd=partial)
    (archive,) = partial.glob(f"{package}_*.deb")
    run(["dpkg-deb", "--extract", archive, partial])
    archive.unlink()
    partial.rename(folder)
    return folder


@functools.cache
def _update_lists() -> None:
    if os.geteuid() == 0:
        run(["apt-get", "update", "--quiet=2"])


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
