"""talosctl: the machine's own, else built from source for stacks with clusters."""

import re
import shutil
from pathlib import Path

from toolchain import golang
from toolchain.paths import BIN

PACKAGE = "github.com/siderolabs/talos/cmd/talosctl"
CURRENT, CLASSIC, NEWEST = (
    golang.Program(name=f"talosctl-{generation}", package=PACKAGE)
    for generation in ("1.13", "1.11", "1.14")
)
NAME = "talosctl"


def ensure(stack_file: str) -> None:
    """Build talosctl if a stack file has clusters and the machine has none."""
    link = BIN / NAME
    if found := on_machine():
        if Path(found) != link:
            link.unlink(missing_ok=True)
    elif is_needed(stack_file):
        golang.ensure(CURRENT)
        link.symlink_to(CURRENT.name)


def is_needed(stack_file: str) -> bool:
    """Whether a stack file has clusters."""
    return re.search(r"^  ([\w.-]+:)?clusters:", stack_file, re.MULTILINE) is not None


def on_machine() -> str:
    """Return the path of talosctl, also of one that was built here; empty if there is none."""
    built = BIN / NAME
    return shutil.which(NAME) or (str(built) if built.exists() else "")
