"""A container runtime that starts privileged containers on machines without CAP_SYS_RESOURCE.

talosctl creates privileged nodes, which need all capabilities. Without CAP_SYS_RESOURCE, as in some
virtual machines, runc refuses them. The wrapper removes this capability from the list.
"""

import sys
from pathlib import Path

NAME = "runc-without-sys-resource"
CAP_SYS_RESOURCE = 24

WRAPPER = """\
#!{python}
import json, os, pathlib, sys
arguments = sys.argv[1:]
if "create" in arguments or "run" in arguments:
    bundle = pathlib.Path(arguments[arguments.index("--bundle") + 1])
    file = bundle / "config.json"
    config = json.loads(file.read_text())
    for granted in config["process"].get("capabilities", {{}}).values():
        if "CAP_SYS_RESOURCE" in granted:
            granted.remove("CAP_SYS_RESOURCE")
    file.write_text(json.dumps(config))
os.execvp("runc", ["runc", *arguments])
"""


def options(folder: Path) -> list[str]:
    """Options of dockerd that make this runtime the default, if it is needed."""
    if _have_all_capabilities():
        return []
    wrapper = folder / NAME
    wrapper.write_text(WRAPPER.format(python=sys.executable))
    wrapper.chmod(0o755)
    return ["--add-runtime", f"{NAME}={wrapper}", "--default-runtime", NAME]


def _have_all_capabilities() -> bool:
    status = Path("/proc/self/status").read_text()
    (bounding,) = (line for line in status.splitlines() if line.startswith("CapBnd:"))
    return bool(int(bounding.split()[1], 16) >> CAP_SYS_RESOURCE & 1)
