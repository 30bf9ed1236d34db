"""The images that a stack file lists, for commands that work on its image set.

The program checks stack files; here, wrong settings end in one sentence.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from talos_registry_cache.cli import selection
from talos_registry_cache.cli.errors import UsageError
from talos_registry_cache.registry import declared_images, files, image_lock, reference
from talos_registry_cache.registry.attachments import Attachments
from talos_registry_cache.registry.declared_images import Found
from talos_registry_cache.registry.errors import RegistryError
from talos_registry_cache.registry.reference import Reference
from talos_registry_cache.talos import images as talos_images
from talos_registry_cache.talos import versions
from talos_registry_cache.talos.images import DEFAULT_SCHEMATIC

SIZE_LIMIT = 1 << 20
KEY = "images"


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, alias_generator=to_camel, hide_input_in_errors=True)


class TalosImages(_Model):
    """As components/settings/images.py has them."""

    talosctl: str = "talosctl"
    talos_version: str | None = None
    kubernetes_version: str | None = None
    schematic: str = DEFAULT_SCHEMATIC


class Images(_Model):
    """The key `images` of a stack file, as components/settings/images.py has it."""

    references: list[str] = []
    file: str | None = None
    manifests: list[str] = []
    talos: TalosImages | None = None
    lock: str = Field(default=image_lock.FILE)
    platforms: list[str] | str | None = None
    attachments: Attachments | None = None

    def listed(self, folder: Path) -> tuple[Reference, ...]:
        """The images that it lists, each once.

        Args:
            folder: the folder of the stack file.

        Raises:
            UsageError: one of them is wrong, or cannot be read.
            TalosError: talosctl cannot list them.
        """
        return tuple(dict.fromkeys(self._listed(folder)))

    def _listed(self, folder: Path) -> Iterator[Reference]:
        yield from selection.gather(self.references, [])
        if self.file is not None:
            yield from selection.from_file(folder / self.file)
        for name in self.manifests:
            yield from _declared(folder / name)
        if self.talos:
            texts = talos_images.of_cluster(
                versions.find(self.talos.talosctl),
                versions.parse(self.talos.talos_version or ""),
                self.talos.kubernetes_version,
                self.talos.schematic,
            )
            yield from map(reference.parse, texts)


def read(folder: Path, stack: str) -> Images:
    """Read the images of a stack file.

    Args:
        folder: its folder.
        stack: the stack's name.

    Raises:
        UsageError: it cannot be read, or is wrong.
    """
    path = folder / f"Pulumi.{stack}.yaml"
    try:
        content = yaml.safe_load(files.read_text(path, SIZE_LIMIT))
        return Images.model_validate(_settings(content) or {})
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}; or give IMAGE or --images") from None
    except yaml.YAMLError as error:
        raise UsageError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, (KEY, *first["loc"])))
        raise UsageError(f"{path}, {where}: {first['msg']}; `pulumi preview` says more") from None


def _settings(content: Any) -> Any:
    """The key `images`, with or without the name of the project."""
    config = content.get("config") if isinstance(content, dict) else None
    if not isinstance(config, dict):
        return None
    return next((value for key, value in config.items() if str(key).split(":")[-1] == KEY), None)


def _declared(path: Path) -> Iterator[Reference]:
    try:
        for file in declared_images.files(path):
            content = files.read_text(file, declared_images.SIZE_LIMIT)
            for one in declared_images.find(content):
                if not isinstance(one, Found):
                    raise UsageError(f"{file}, {one}")
                yield one.reference
    except (OSError, UnicodeDecodeError, RegistryError) as error:
        raise UsageError(f"{path}: {error}") from None
