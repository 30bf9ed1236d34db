"""The image of the fronts, nginx: pulled if possible, else built from the machine's package."""

import re
import tempfile
from pathlib import Path

from toolchain import debian, official_image
from toolchain.official_image import Content
from toolchain.paths import CACHE
from toolchain.report import run, say, step

REFERENCE = "nginx:1.30.6-alpine"
PACKAGE = "nginx"


def is_used(stack_file: str) -> bool:
    """Whether a stack file has a front; a comment does not count."""
    return bool(re.search(r"""^[^#\n]*(?<![\w.-])front["']?:(\s|$)""", stack_file, re.MULTILINE))


def ensure(host: str) -> None:
    """Pull the image, or build it from the machine's package.

    Raises:
        SetupError: neither is possible.
    """
    official_image.ensure(host, REFERENCE, _from_package)


def _from_package() -> Content:
    CACHE.mkdir(exist_ok=True)
    # Not in /tmp, from which some machines run no programs.
    with step(f"package {PACKAGE}: unpack"), tempfile.TemporaryDirectory(dir=CACHE) as folder:
        version = debian.unpack_with_dependencies(PACKAGE, Path(folder))
        programs = _programs(Path(folder))
    say(f"    {REFERENCE} is replaced by the package {PACKAGE} {version}")
    label = f"Built from the package {PACKAGE} {version} by talos-registry-cache"
    return Content(
        programs=programs,
        files={},
        owned=[],
        instructions=[
            'CMD ["nginx", "-g", "daemon off;"]',
            f'LABEL org.opencontainers.image.description="{label}"',
            f'LABEL org.opencontainers.image.version="{version}"',
        ],
    )


def _programs(root: Path) -> dict[str, bytes]:
    """Return nginx, its shared libraries and their loader, by their paths in the image."""
    nginx = root / "usr" / "sbin" / "nginx"
    folders = ":".join(str(folder) for folder in root.rglob("*-linux-gnu*"))
    loader = next(root.rglob("*-linux-gnu*/ld-linux*"))
    # A program names its libraries without a folder, and its loader with one.
    listed = run([loader, "--library-path", folders, "--list", nginx])
    found = re.findall(r"(\S+) => (.+) \(0x", listed)
    libraries = {
        name.removeprefix("/") if name.startswith("/") else f"lib/{name}": Path(path).read_bytes()
        for name, path in found
    }
    return {"bin/nginx": nginx.read_bytes(), **libraries}
