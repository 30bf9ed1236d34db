"""Debian packages that are unpacked but not installed."""

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
    if os.geteuid() == 0:
        run(["apt-get", "update", "--quiet=2"])
    run(["apt-get", "download", "--quiet=2", package], cwd=partial)
    (archive,) = partial.glob(f"{package}_*.deb")
    run(["dpkg-deb", "--extract", archive, partial])
    archive.unlink()
    partial.rename(folder)
    return folder
