"""Setting a stack apart from what runs on the same engine, and reading the result back.

Its names get a prefix and its ports others that are free; what Pulumi then says of it is put back
into the names and ports that the stack file has.
"""

import hashlib
import itertools
import json
import os
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

import yaml

from talos_registry_cache.engine.ports import can_bind

PROJECT = "talos-registry-cache"
PORTS = range(10_000, 20_000)
LOWEST_UNPRIVILEGED_PORT = 1024
HIGHEST_PORT = 65535

# Beside the configuration a stack file says who encrypts it, which here is somebody else. And the
# engine is this machine's, wherever the stack's own is.
_CONFIG = "config"
_ENGINE_HOST = "docker:host"

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Isolated:
    """The configuration of a stack that is set apart.

    Attributes:
        text: the stack file, with nothing where it has secrets.
        secrets: a stand-in for each secret, by its path as `pulumi config set --path` takes it.
    """

    text: str
    secrets: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Isolation:
    """How the stacks of one run are set apart.

    Attributes:
        prefix: what their names begin with, and no other name on the engine does.
        ports: the port that each port of a stack file becomes, by the stack's name; no two stacks
            have the same, since all of them are up at once.
    """

    prefix: str
    ports: Mapping[str, Mapping[int, int]]

    def stack(self, name: str) -> str:
        """The name of a stack that is set apart."""
        return f"{self.prefix}{name}"

    def apply(self, stack: str, text: str, customary_ports: Mapping[str, int]) -> Isolated:
        """Set the stack of a stack file apart.

        A file that is no YAML, or no mapping, stays as it is: Pulumi says what is wrong with it.

        Args:
            stack: the stack's name.
            text: the stack file.
            customary_ports: the port of each registry that the program knows, by its host.
        """
        config = _config(text)
        if config is None:
            return Isolated(text, {})
        caches = config.get(f"{PROJECT}:caches")
        if isinstance(caches, dict):
            self._set_names_apart(caches)
            self._set_ports_apart(stack, caches, customary_ports)
        if isinstance(config.get(f"{PROJECT}:mirrorsFrom"), str):
            config[f"{PROJECT}:mirrorsFrom"] = self.stack(config[f"{PROJECT}:mirrorsFrom"])
        config.pop(_ENGINE_HOST, None)
        stand_ins = dict(_take_secrets(config))
        return Isolated(yaml.safe_dump({_CONFIG: config}, sort_keys=False), stand_ins)

    def restore(self, text: str) -> str:
        """A text with the names and ports that the stack files have."""
        original = {
            str(mapped): str(port)
            for ports in self.ports.values()
            for port, mapped in ports.items()
        }
        return re.sub(
            r"(?<![\w.])\d{4,5}(?!\w)",
            lambda number: original.get(number[0], number[0]),
            text.replace(self.prefix, ""),
        )

    def _set_names_apart(self, caches: dict[str, Any]) -> None:
        storage = caches.get("storage")
        places = ((caches, "namePrefix"), (storage, "volumePrefix"))
        for settings, key in places:
            if isinstance(settings, dict) and isinstance(settings.get(key), str):
                settings[key] = f"{self.prefix}{settings[key]}"

    def _set_ports_apart(
        self, stack: str, caches: dict[str, Any], customary: Mapping[str, int]
    ) -> None:
        upstreams = caches.get("upstreams")
        if not isinstance(upstreams, dict):
            return
        for host, upstream in list(upstreams.items()):
            settings = {} if upstream is None else upstream
            if not isinstance(settings, dict):
                continue
            port = settings.get("port", customary.get(host))
            if _is_allowed(port):
                upstreams[host] = {**settings, "port": self.ports[stack][port]}


def ports_in(text: str, customary_ports: Mapping[str, int]) -> Iterator[int]:
    """The ports that the caches of a stack file have."""
    caches = (_config(text) or {}).get(f"{PROJECT}:caches")
    upstreams = caches.get("upstreams") if isinstance(caches, dict) else None
    for host, upstream in upstreams.items() if isinstance(upstreams, dict) else []:
        settings = {} if upstream is None else upstream
        port = settings.get("port", customary_ports.get(host)) if isinstance(settings, dict) else 0
        if _is_allowed(port):
            yield port


def mirrors_from(text: str) -> str | None:
    """The stack whose outputs the stack of a stack file reads."""
    named = (_config(text) or {}).get(f"{PROJECT}:mirrorsFrom")
    return named if isinstance(named, str) and named else None


def runs_on_swarm(text: str) -> bool:
    """Whether a stack file has its caches on a Swarm."""
    caches = (_config(text) or {}).get(f"{PROJECT}:caches")
    placement = caches.get("placement") if isinstance(caches, dict) else None
    return isinstance(placement, dict) and placement.get("kind") == "swarm"


def image_file(text: str) -> str | None:
    """The file with image references that a stack file names."""
    images = (_config(text) or {}).get(f"{PROJECT}:images")
    file = images.get("file") if isinstance(images, dict) else None
    return os.path.normpath(file) if isinstance(file, str) else None


def needs_simulation(text: str) -> bool:
    """Whether a stack file has clusters or images, which are not made for a preview."""
    config = _config(text) or {}
    return any(config.get(f"{PROJECT}:{key}") for key in ("clusters", "images"))


def new_prefix() -> str:
    """What the names of one run begin with."""
    return f"pr-{secrets.token_hex(4)}-"


def choose_ports(
    texts: Iterable[str],
    ports: Mapping[str, Iterable[int]],
    is_free: Callable[[int], bool] | None = None,
) -> Mapping[str, Mapping[int, int]]:
    """Choose a free port for each port of each stack.

    Args:
        texts: the stack files; no number in them is chosen, since it could not be told apart.
        ports: their ports, by the stack's name.
        is_free: whether nothing has a port; asks this machine if left out.
    """
    numbers = {int(number) for text in texts for number in re.findall(r"\d{4,5}", text)}
    is_free = is_free or (lambda port: can_bind("", port))
    # From anywhere on, so that two runs at once do not have the same in mind.
    start = secrets.randbelow(len(PORTS))
    candidates = itertools.chain(PORTS[start:], PORTS[:start])
    free = (port for port in candidates if port not in numbers and is_free(port))
    return {stack: {port: next(free) for port in sorted(set(own))} for stack, own in ports.items()}


def _config(text: str) -> dict[str, Any] | None:
    """The configuration of a stack file, with the project's name before each key.

    A stack file may leave it out, as Pulumi allows. New at each call; None where there is none.
    """
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError:
        return None
    config = content.get(_CONFIG) if isinstance(content, dict) else None
    if not isinstance(config, dict):
        return None
    return {key if ":" in str(key) else f"{PROJECT}:{key}": value for key, value in config.items()}


def _is_allowed(port: Any) -> TypeGuard[int]:
    """Whether the program takes a port; one that it does not stays, so that it can say why."""
    lowest = 1 if os.name == "posix" and os.geteuid() == 0 else LOWEST_UNPRIVILEGED_PORT
    return type(port) is int and lowest <= port <= HIGHEST_PORT


def _take_secrets(value: Any, path: Path = ()) -> Iterator[tuple[str, str]]:
    """Replace the secrets within a value by nothing, and say what stands in for each.

    What stands in for a secret is made from its ciphertext: it differs where that was changed.
    """
    children: Iterable[tuple[str | int, Any]] = ()
    if isinstance(value, dict):
        children = list(value.items())
    elif isinstance(value, list):
        children = list(enumerate(value))
    for key, child in children:
        inner = (*path, key)
        if isinstance(child, dict) and set(child) == {"secure"}:
            digest = hashlib.sha256(json.dumps(child["secure"]).encode()).hexdigest()
            value[key] = ""
            yield _pulumi_path(inner), f"stand-in-{digest[:32]}"
        else:
            yield from _take_secrets(child, inner)


def _pulumi_path(path: Path) -> str:
    key, *inner = path
    return str(key) + "".join(f"[{json.dumps(part)}]" for part in inner)
