"""Isolates a stack from everything else on the engine, and translates its output back.

Its names get a prefix and its ports are replaced by free ones. In Pulumi's output, both are then
replaced by the names and ports of the stack file.
"""

import copy
import functools
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

# The stack may be on another engine; the preview uses this machine's.
_ENGINE_HOST = "docker:host"

Path = tuple[str | int, ...]


# The defaults of other ports than those of caches, by their keys below `caches`.
MORE_PORTS: Mapping[str, int | None] = {"wildcard": 5009, "local": None}


class StackFile:
    """A stack file, read as far as a preview needs it.

    Settings of the wrong type count as absent: the program reports them.

    Attributes:
        text: the file's text.
        config: its configuration, or None if it has none.
        ports: the valid ports of its caches, by the place of their settings below `caches`.
    """

    def __init__(self, text: str = "", default_ports: Mapping[str, int] | None = None) -> None:
        """Read a stack file.

        Args:
            text: the file's text.
            default_ports: the default port of each registry in the program's catalogue.
        """
        self.text = text
        self.config = _config(text)
        found = dict(self._ports(default_ports or {}))
        self.ports = {place: port for place, port in found.items() if _is_valid(port)}

    @property
    def mirrors_from(self) -> str | None:
        """The stack whose outputs this stack reads."""
        named = (self.config or {}).get(f"{PROJECT}:mirrorsFrom")
        return named if isinstance(named, str) and named else None

    @property
    def runs_on_swarm(self) -> bool:
        """Whether the caches run on a Swarm."""
        return _mapping(self._section("caches").get("placement")).get("kind") == "swarm"

    @property
    def lock(self) -> str | None:
        """The lock of its images."""
        named = self._section("images").get("lock")
        return named if isinstance(named, str) and named else None

    @property
    def reads(self) -> frozenset[str]:
        """The files and folders that the stack may read: any text may name one.

        A comparison too many takes a minute; one too few would hide a change.
        """
        return frozenset(os.path.normpath(text) for text in _texts(self.config) if text)

    def _ports(self, default_ports: Mapping[str, int]) -> Iterator[tuple[tuple[str, ...], Any]]:
        caches = self._section("caches")
        for host, settings in _mapping(caches.get("upstreams")).items():
            if settings is None or isinstance(settings, dict):
                yield ("upstreams", host), (settings or {}).get("port", default_ports.get(host))
        for key, default in MORE_PORTS.items():
            if isinstance(caches.get(key), dict):
                yield (key,), caches[key].get("port", default)

    def _section(self, key: str) -> dict[str, Any]:
        return _mapping((self.config or {}).get(f"{PROJECT}:{key}"))


@dataclass(frozen=True, slots=True)
class Isolation:
    """The names and ports of one preview.

    Attributes:
        prefix: the prefix of all names, which nothing else on the engine has.
        ports: the free port for each port of a stack file, by stack. No two stacks share a port,
            since all of them are up at once.
    """

    prefix: str
    ports: Mapping[str, Mapping[int, int]]

    def name(self, stack: str) -> str:
        """Return the name of the isolated stack."""
        return f"{self.prefix}{stack}"

    def apply(self, stack: str, file: StackFile) -> tuple[str, Mapping[str, str]]:
        """Isolate a stack.

        A file without configuration is returned as it is: Pulumi reports what is wrong with it.

        Args:
            stack: the stack's name.
            file: its stack file.

        Returns:
            The new stack file, with an empty string in place of each secret; and a stand-in for
            each secret, by its path for `pulumi config set --path`.
        """
        if file.config is None:
            return file.text, {}
        config = copy.deepcopy(file.config)
        caches = _mapping(config.get(f"{PROJECT}:caches"))
        self._prefix(caches, "namePrefix")
        self._prefix(_mapping(caches.get("storage")), "volumePrefix")
        self._prefix(config, f"{PROJECT}:mirrorsFrom")
        for (*above, key), port in file.ports.items():
            settings = functools.reduce(dict.__getitem__, above, caches)
            settings[key] = {**(settings[key] or {}), "port": self.ports[stack][port]}
        config.pop(_ENGINE_HOST, None)
        stand_ins = dict(_take_secrets(config))
        return yaml.safe_dump({"config": config}, sort_keys=False), stand_ins

    def restore(self, text: str) -> str:
        """Return a text with the names and ports of the stack files."""
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

    def _prefix(self, settings: dict[str, Any], key: str) -> None:
        if isinstance(settings.get(key), str):
            settings[key] = f"{self.prefix}{settings[key]}"


def new_prefix() -> str:
    """Return the prefix of a new preview."""
    return f"pr-{secrets.token_hex(4)}-"


def choose_ports(
    texts: Iterable[str],
    ports: Mapping[str, Iterable[int]],
    is_free: Callable[[int], bool] | None = None,
) -> Mapping[str, Mapping[int, int]]:
    """Choose a free port for each port of each stack.

    Args:
        texts: the stack files; a number in them is not chosen, so that `restore` is unambiguous.
        ports: the ports of each stack.
        is_free: whether a port is free; asks this machine if left out.
    """
    numbers = {int(number) for text in texts for number in re.findall(r"\d{4,5}", text)}
    is_free = is_free or (lambda port: can_bind("", port))
    # A random start, so that two previews at once do not try the same ports.
    start = secrets.randbelow(len(PORTS))
    candidates = itertools.chain(PORTS[start:], PORTS[:start])
    free = (port for port in candidates if port not in numbers and is_free(port))
    return {stack: {port: next(free) for port in sorted(set(own))} for stack, own in ports.items()}


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _config(text: str) -> dict[str, Any] | None:
    """The configuration of a stack file, with the project's name before each key.

    A stack file may leave it out, as Pulumi allows.
    """
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError:
        return None
    config = content.get("config") if isinstance(content, dict) else None
    if not isinstance(config, dict):
        return None
    return {key if ":" in str(key) else f"{PROJECT}:{key}": value for key, value in config.items()}


def _texts(value: Any) -> Iterator[str]:
    """Yield the texts in a value, without keys."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _texts(inner)


def _is_valid(port: Any) -> TypeGuard[int]:
    """Whether the program accepts a port; one that it does not is left for it to report."""
    lowest = 1 if os.name == "posix" and os.geteuid() == 0 else LOWEST_UNPRIVILEGED_PORT
    return type(port) is int and lowest <= port <= HIGHEST_PORT


def _take_secrets(value: Any, path: Path = ()) -> Iterator[tuple[str, str]]:
    """Replace the secrets in a value by empty strings, and yield the path and stand-in of each.

    The stand-in is derived from the ciphertext, so it changes when the ciphertext does.
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
