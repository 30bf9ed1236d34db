"""Adds a cluster to the user's own kubeconfig, and removes it again.

Added entries are marked with an extension, which Kubernetes clients keep and ignore, so that no
other entry is ever replaced or removed.
"""

import contextlib
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from talos_registry_cache.talos.errors import TakenError, TalosError

MARK = "talos-registry-cache"
SECTIONS = ("clusters", "users", "contexts")
LOCK_WITHIN_S = 10.0
# PyYAML takes a minute to read this much.
SIZE_LIMIT = 4 << 20
LOCK_POLL_S = 0.05


def merge(source: Path, target: Path) -> None:
    """Add the entries of one kubeconfig to another, or update them.

    The current context is set only if there is none.

    Args:
        source: the kubeconfig of one cluster, as talosctl writes it: its user and context are
            called `admin@NAME`.
        target: the user's kubeconfig, created if it is missing.

    Raises:
        TakenError: the target has an entry of the same name that this did not add.
        TalosError: one of them cannot be read or written.
    """
    added = _read(source)
    with _edited(target) as config:
        for section in SECTIONS:
            entries = [_marked(section, entry) for entry in added.get(section) or []]
            config[section] = [*_others(config, section, entries, target), *entries]
        config["current-context"] = config.get("current-context") or added.get("current-context")


def remove(target: Path, cluster: str) -> None:
    """Remove the entries of a cluster that `merge` added to a kubeconfig.

    Raises:
        TalosError: it cannot be read or written.
    """
    if not target.exists():
        return
    with _edited(target) as config:
        gone = [
            (section, entry)
            for section in SECTIONS
            for entry in config.get(section) or []
            if _is_marked(section, entry) and entry["name"].rpartition("@")[2] == cluster
        ]
        for section, entry in gone:
            config[section].remove(entry)
        if config.get("current-context") in [e["name"] for s, e in gone if s == "contexts"]:
            config["current-context"] = ""


def _others(
    config: Mapping[str, Any], section: str, entries: list[Any], target: Path
) -> list[dict[str, Any]]:
    names = {entry["name"] for entry in entries}
    others = []
    for entry in config.get(section) or []:
        if entry.get("name") not in names:
            others.append(entry)
        elif not _is_marked(section, entry):
            raise TakenError(
                f"{target} already has {entry['name']} in its {section}; "
                "rename or remove that, or choose another name for the cluster"
            )
    return others


def _marked(section: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    body = dict(entry[_body(section)])
    body["extensions"] = [*(body.get("extensions") or []), {"name": MARK, "extension": {}}]
    return {**entry, _body(section): body}


def _is_marked(section: str, entry: Mapping[str, Any]) -> bool:
    extensions = (entry.get(_body(section)) or {}).get("extensions") or []
    return any(extension.get("name") == MARK for extension in extensions)


def _body(section: str) -> str:
    return section.removesuffix("s")


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            content = file.read(SIZE_LIMIT + 1)
        if len(content) > SIZE_LIMIT:
            raise TalosError(f"the kubeconfig {path} is larger than {SIZE_LIMIT} bytes")
        config = yaml.safe_load(content.decode("utf-8"))
    except FileNotFoundError:
        config = None
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise TalosError(f"cannot read the kubeconfig {path}: {error}") from error
    if config is None:
        return {"apiVersion": "v1", "kind": "Config"}
    if not isinstance(config, dict):
        raise TalosError(f"{path} is not a kubeconfig: it has no mapping")
    return config


@contextmanager
def _edited(path: Path) -> Iterator[dict[str, Any]]:
    """Yield a kubeconfig to change, and write it back atomically if it did change."""
    # A symbolic link stays; its target is written.
    path = path.resolve()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _locked(path):
            config = _read(path)
            before = yaml.safe_dump(config, sort_keys=False)
            yield config
            after = yaml.safe_dump(config, sort_keys=False)
            if after != before:
                _replace(path, after)
    except OSError as error:
        raise TalosError(f"cannot write the kubeconfig {path}: {error}") from error


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock file that kubectl uses too."""
    lock = path.with_name(f"{path.name}.lock")
    deadline = time.monotonic() + LOCK_WITHIN_S
    while True:
        try:
            os.close(os.open(lock, os.O_CREAT | os.O_EXCL, 0o600))
            break
        except FileExistsError:
            if time.monotonic() >= deadline:
                raise TalosError(
                    f"another program is writing {path}; if not, remove {lock}"
                ) from None
            time.sleep(LOCK_POLL_S)
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)


def _replace(path: Path, text: str) -> None:
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise
