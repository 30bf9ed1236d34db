"""Debian packages of which the files are used, and nothing is installed or started."""

import os
import shutil
from pathlib import Path

from toolchain.report import SetupError, run


def unpack(package: str, folder: Path) -> None:
    """Download a package, and unpack it into a folder that is not there unless it succeeds.

    Raises:
        SetupError: this is no Debian, or the package cannot be had.
    """
    missing = [tool for tool in ("apt-get", "dpkg-deb") if not shutil.which(tool)]
    if missing:
        raise SetupError(f"the package {package} needs {' and '.join(missing)}: a Debian or Ubuntu")
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
