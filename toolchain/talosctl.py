"""A talosctl for the clusters of a stack: the machine's own, else one built here."""

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
    """Make sure of talosctl for a stack file that has clusters; the machine's own goes first."""
    has_clusters = re.search(r"^  ([\w.-]+:)?clusters:", stack_file, re.MULTILINE)
    link = BIN / NAME
    found = shutil.which(NAME)
    if found and Path(found) != link:
        link.unlink(missing_ok=True)
    elif has_clusters and not link.exists():
        golang.ensure(CURRENT)
        link.symlink_to(CURRENT.name)
