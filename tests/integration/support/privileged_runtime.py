"""A container runtime that starts privileged containers on machines without CAP_SYS_RESOURCE.

talosctl creates privileged nodes, which need all capabilities. Without CAP_SYS_RESOURCE, as in some
virtual machines, runc refuses them. The wrapper removes this capability from the list.
"""

from pathlib import Path

from toolchain import talos_node

CAP_SYS_RESOURCE = 24


def options() -> list[str]:
    """Options of dockerd that make this runtime the default, if it is needed."""
    if _have_all_capabilities():
        return []
    name = talos_node.RUNC_WRAPPER.name
    runtime = f"{name}={talos_node.PROGRAMS / name}"
    return ["--add-runtime", runtime, "--default-runtime", name]


def _have_all_capabilities() -> bool:
    status = Path("/proc/self/status").read_text()
    (bounding,) = (line for line in status.splitlines() if line.startswith("CapBnd:"))
    return bool(int(bounding.split()[1], 16) >> CAP_SYS_RESOURCE & 1)
