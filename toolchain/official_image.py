"""Official images: pulled if possible, else built here under a name of their own."""

import io
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from toolchain import debian, engine, layer
from toolchain.report import SetupError, say, step

PULL_TIMEOUT_S = 60
USER = 65532
"""The unprivileged user of the images that are built here."""

FOLDERS = ("bin", "dev", "etc", "proc", "sys")
APPLETS = ("cat", "sh", "sleep", "test", "wget")
USERS = f"root:x:0:0::/:/bin/sh\nnonroot:x:{USER}:{USER}::/:/bin/sh\n"


@dataclass(frozen=True, slots=True)
class Content:
    """The content of an image, apart from busybox, which has the shell and wget of health checks.

    Attributes:
        programs: programs and libraries, by their paths.
        files: other files, by their paths.
        owned: folders that belong to `USER`.
        instructions: its configuration, as Dockerfile instructions.
    """

    programs: Mapping[str, bytes]
    files: Mapping[str, bytes]
    owned: Sequence[str]
    instructions: Sequence[str]


def built_reference(reference: str) -> str:
    """Return the name of the image that is built if an official one cannot be pulled.

    It is a name of its own, since the two differ, such as in their user.
    """
    return f"talos-registry-cache/{reference}"


def is_there(host: str, reference: str) -> bool:
    """Whether the engine has an official image, or the one that is built in its place."""
    return any(engine.has_image(host, one) for one in (built_reference(reference), reference))


def ensure(host: str, reference: str, build: Callable[[], Content]) -> None:
    """Pull an image, or build one in its place, unless the engine has one of them.

    Args:
        host: the engine.
        reference: the official image, such as registry:3.1.2.
        build: returns the content of the image to build.

    Raises:
        SetupError: it can be neither pulled nor built.
    """
    repository, tag = reference.split(":")
    built = built_reference(reference)
    if is_there(host, reference):
        return
    with step(f"image {reference}: pull"):
        try:
            engine.pull_image(host, repository, tag, timeout_s=PULL_TIMEOUT_S)
        except OSError as error:
            problem = str(error)
        else:
            return
    say(f"    cannot be pulled ({problem}), so {built} is built and used instead")
    try:
        content = build()
        packed = _layer(content)
    except SetupError as error:
        raise SetupError(
            f"{reference} cannot be pulled, and it cannot be built here: {error}\n"
            f"Copy it from another machine: docker save {reference} | docker load"
        ) from error
    changes = [f"USER {USER}", "ENV PATH=/bin", *content.instructions]
    with step(f"image {built}: load"):
        engine.import_image(host, packed, built_reference(repository), tag, changes)


def _layer(content: Content) -> bytes:
    programs = {"bin/busybox": debian.busybox().read_bytes(), **content.programs}
    files = {"etc/passwd": USERS.encode(), **content.files}
    parents = (str(Path(name).parent) for name in (*programs, *files))
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for folder in layer.with_parents([*FOLDERS, *content.owned, *parents]):
            layer.add_folder(tar, folder, owner=USER if folder in content.owned else 0)
        layer.add_folder(tar, "tmp", mode=0o1777)
        for name, data in programs.items():
            layer.add_file(tar, name, data, 0o755)
        for name, data in files.items():
            layer.add_file(tar, name, data, 0o644)
        for applet in APPLETS:
            layer.add_link(tar, f"bin/{applet}", "busybox")
    return archive.getvalue()
