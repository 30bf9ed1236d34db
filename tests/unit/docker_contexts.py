"""Docker contexts, written as the docker CLI writes them."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def add(folder: Path, name: str, endpoint: Mapping[str, Any]) -> Path:
    """Write a context into a directory of the docker CLI; returns the file."""
    file = folder / "contexts" / "meta" / ident(name) / "meta.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"Name": name, "Endpoints": {"docker": endpoint}}))
    return file


def ident(name: str) -> str:
    """The name of a context's directory."""
    return hashlib.sha256(name.encode()).hexdigest()


def use(folder: Path, name: str) -> None:
    """Select a context, as `docker context use` does."""
    (folder / "config.json").write_text(json.dumps({"currentContext": name}))
