"""Platforms of images and nodes, and which of an image's platforms a node runs.

The rules are those of containerd's platforms package (`Only`): a processor also runs images for
older variants of it. The fallbacks to 32 bits (386 on amd64, arm on arm64) are left out, since
Talos nodes do not need such images.
"""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Final, Literal

from pydantic import Field

from talos_registry_cache.registry.errors import PlatformError
from talos_registry_cache.registry.nulls import empty_if_null

LONGEST_SHOWN = 100
ALL: Final = "all"
# Architectures that Go builds for (`go tool dist list`) on operating systems that run containers.
_SYSTEMS = frozenset({"linux", "windows", "darwin", "freebsd"})
_ARCHITECTURES = frozenset(
    {
        "386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle",
        "ppc64", "ppc64le", "riscv64", "s390x",
    }
)  # fmt: skip
_VARIANT = re.compile(r"v?[0-9]{1,3}(\.[0-9]{1,3})?")
_ALIASES = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64", "i386": "386"}
_ARM_VARIANTS = {"armhf": "v7", "armel": "v6"}
# The variant that an empty one stands for.
_BASE = {"amd64": "v1", "arm64": "v8", "arm": "v7"}
# arm64 v9.n runs what v8.(n + 5) runs, as far as there is one.
_V9_IS_V8 = 5
_LAST_V8 = 9
_OLDEST_ARM = 5


@dataclass(frozen=True, slots=True)
class Platform:
    """An operating system and processor.

    Attributes:
        os: operating system, such as linux.
        architecture: Go's name of the architecture, such as amd64.
        variant: variant of the processor, such as v8, or empty.
        features: what an image requires of the operating system; no node is known to have it.
    """

    os: Annotated[str, empty_if_null(str)] = ""
    architecture: Annotated[str, empty_if_null(str)] = ""
    variant: Annotated[str, empty_if_null(str)] = ""
    features: Annotated[tuple[str, ...], Field(alias="os.features"), empty_if_null(tuple)] = ()

    def __str__(self) -> str:
        """OS/ARCHITECTURE or OS/ARCHITECTURE/VARIANT."""
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


Platforms = tuple[Platform, ...] | Literal["all"]
"""Some platforms, or everything that images have."""


def parse_all(texts: Collection[str]) -> Platforms:
    """Parse platforms, one of which may be `all`.

    Raises:
        PlatformError: a text is not a platform.
    """
    return ALL if ALL in texts else tuple(dict.fromkeys(map(parse, texts)))


def names(platforms: Platforms) -> tuple[str, ...]:
    """The texts that `parse_all` reads."""
    return (ALL,) if platforms == ALL else tuple(map(str, platforms))


def parse(text: str) -> Platform:
    """Parse OS/ARCHITECTURE or OS/ARCHITECTURE/VARIANT.

    Raises:
        PlatformError: the text is not a platform.
    """
    match text.split("/"):
        case [os, architecture, *variant] if len(variant) <= 1 and all(
            map(_VARIANT.fullmatch, variant)
        ):
            platform = Platform(os, _ALIASES.get(architecture, architecture), "".join(variant))
            if os in _SYSTEMS and platform.architecture in _ARCHITECTURES:
                return platform
    raise PlatformError(
        f"{text[:LONGEST_SHOWN]!r} is not a platform; allowed: OS/ARCHITECTURE or "
        "OS/ARCHITECTURE/VARIANT, such as linux/amd64 or linux/arm/v7"
    )


def preference(node: Platform) -> tuple[Platform, ...]:
    """The platforms whose images a node runs, in normal form, best match first."""
    node = normal(node)
    return tuple(replace(node, variant=variant) for variant in _variants(node))


def normal(platform: Platform) -> Platform:
    """The normal form of a platform, with an explicit variant if the architecture has variants."""
    name, variant = platform.architecture.lower(), platform.variant.lower().removesuffix(".0")
    if name in _ARM_VARIANTS:
        name, variant = "arm", _ARM_VARIANTS[name]
    architecture = _ALIASES.get(name, name)
    variant = variant or _BASE.get(architecture, "")
    if variant.isdigit():
        variant = f"v{variant}"
    return Platform(platform.os.lower() or "linux", architecture, variant, platform.features)


def _variants(node: Platform) -> Iterator[str]:
    yield node.variant
    version = re.fullmatch(r"v(\d+)(?:\.(\d+))?", node.variant)
    if not version:
        return
    major, minor = int(version[1]), int(version[2] or 0)
    match node.architecture:
        case "amd64":
            yield from (f"v{older}" for older in range(major - 1, 0, -1))
        case "arm":
            yield from (f"v{older}" for older in range(major - 1, _OLDEST_ARM - 1, -1))
        case "arm64":
            yield from (_dotted(major, older) for older in range(minor - 1, -1, -1))
            if major == 9:  # noqa: PLR2004
                newest = min(minor + _V9_IS_V8, _LAST_V8)
                yield from (_dotted(8, older) for older in range(newest, -1, -1))


def _dotted(major: int, minor: int) -> str:
    return f"v{major}.{minor}" if minor else f"v{major}"
