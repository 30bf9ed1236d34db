"""talosctl: the machine's own, else built from source for stacks with clusters."""

import re
import shutil
from pathlib import Path

from toolchain import golang
from toolchain.paths import BIN

PACKAGE = "github.com/siderolabs/talos/cmd/talosctl"
CURRENT, CLASSIC = (
    golang.Program(name=f"talosctl-{generation}", package=PACKAGE)
    for generation in ("1.13", "1.11")
)
NAME = "talosctl"


def ensure(stack_file: str) -> None:
    """Build talosctl if a stack file has clusters and the machine has none."""
    has_clusters = re.search(r"^  ([\w.-]+:)?clusters:", stack_file, re.MULTILINE)
    link = BIN / NAME
    found = shutil.which(NAME)
    if found and Path(found) != link:
        link.unlink(missing_ok=True)
    elif has_clusters and not link.exists():
        golang.ensure(CURRENT)
        link.symlink_to(CURRENT.name)
