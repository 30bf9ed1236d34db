"""The images of a stack's caches that can be built here: the registry's and nginx's."""

import json
import subprocess
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from toolchain import front_image, official_image, registry_image
from toolchain.paths import virtualenv_bin

DEFAULTS = (registry_image.reference(), front_image.REFERENCE)
BUILDERS = {
    DEFAULTS[0]: registry_image.ensure,
    registry_image.reference(registry_image.OLDER): registry_image.ensure_older,
    DEFAULTS[1]: front_image.ensure,
}
# The standard library has no YAML parser; the environment with Pulumi does.
AS_JSON = "import json, sys, yaml; print(json.dumps(yaml.safe_load(sys.stdin)))"


def ensure(host: str, stack_files: Sequence[Path] = ()) -> None:
    """Pull or build missing images, and no others than stack files name; Pulumi pulls the rest.

    Args:
        host: the engine.
        stack_files: the stack files; none for the default images.

    Raises:
        SetupError: an image can be neither pulled nor built.
    """
    ensure_each(host, missing(host, stack_files))


def missing(host: str, stack_files: Sequence[Path] = ()) -> list[str]:
    """Return the images of stack files that can be built here, and that an engine lacks."""
    text = "".join(file.read_text() for file in stack_files)
    absent = [
        reference
        for reference in BUILDERS
        if (reference in DEFAULTS or reference in text)
        and not official_image.is_there(host, reference)
    ]
    if not (absent and stack_files):
        return [reference for reference in absent if reference in DEFAULTS]
    wanted = set[str]().union(*map(named, stack_files))
    return [reference for reference in absent if reference in wanted]


def ensure_each(host: str, references: Collection[str] = tuple(BUILDERS)) -> None:
    """Pull or build images; by default, all that can be built."""
    for reference in references:
        BUILDERS[reference](host)


def named(stack_file: Path) -> set[str]:
    """Return the images that the caches of a stack run; empty for a stack without caches.

    `up` reports mistakes in the file. Until then, whatever cannot be read is ignored.
    """
    python = virtualenv_bin() / "python"
    with stack_file.open() as file:
        parsed = subprocess.run(
            [python, "-c", AS_JSON], stdin=file, capture_output=True, check=False
        )
    settings = _mapping(json.loads(parsed.stdout or "null")).get("config")
    for key, value in _mapping(settings).items():
        if key.rpartition(":")[2] == "caches":
            caches = _mapping(value)
            upstreams = map(_mapping, _mapping(caches.get("upstreams")).values())
            images = [
                caches.get("image", DEFAULTS[0]),
                _mapping(caches.get("front")).get("image", DEFAULTS[1]),
                *(upstream.get("image") for upstream in upstreams),
            ]
            return {image for image in images if isinstance(image, str)}
    return set()


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
