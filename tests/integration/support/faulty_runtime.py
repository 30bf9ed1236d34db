"""A container runtime that injects faults into privileged containers, such as nodes."""

import json
import sys
from pathlib import Path
from typing import Any

from tests.integration.support import privileged_runtime
from toolchain import talos_node

NAME = "faulty"
NO_SYS_ADMIN, NO_CONTROL_GROUPS = "no CAP_SYS_ADMIN", "no control groups"
CAP_SYS_ADMIN = "CAP_SYS_ADMIN"
CONTROL_GROUPS = "/sys/fs/cgroup"


class FaultyRuntime:
    """The runtime.

    Args:
        folder: an empty folder for its files.
    """

    def __init__(self, folder: Path) -> None:
        self._fault = folder / "fault"
        self._program = folder / NAME
        needs_wrapper = bool(privileged_runtime.options())
        runc = talos_node.PROGRAMS / talos_node.RUNC_WRAPPER.name if needs_wrapper else "runc"
        self._program.write_text(
            "#!/bin/sh\n"
            'for word; do [ "$last" = --bundle ] && bundle=$word; last=$word; done\n'
            f'if [ -n "$bundle" ] && [ -e {self._fault} ]; then\n'
            f'  {sys.executable} {__file__} {self._fault} "$bundle/config.json" || exit 1\n'
            "fi\n"
            f'exec {runc} "$@"\n'
        )
        self._program.chmod(0o755)

    def options(self) -> list[str]:
        """Options of dockerd that make this the default runtime."""
        return ["--add-runtime", f"{NAME}={self._program}", "--default-runtime", NAME]

    def inject(self, fault: str) -> None:
        """Inject a fault into containers from now on; none if it is empty."""
        if fault:
            self._fault.write_text(fault)
        else:
            self._fault.unlink(missing_ok=True)


def spoil(fault: str, config: dict[str, Any]) -> None:
    """Inject a fault into the configuration of a container, if it is privileged."""
    sets = config["process"]["capabilities"]
    if CAP_SYS_ADMIN not in sets["bounding"]:
        return
    if fault == NO_SYS_ADMIN:
        for names in sets.values():
            names.remove(CAP_SYS_ADMIN)
    if fault == NO_CONTROL_GROUPS:
        (mount,) = [one for one in config["mounts"] if one["destination"] == CONTROL_GROUPS]
        mount["options"] = [*(one for one in mount["options"] if one != "rw"), "ro"]


if __name__ == "__main__":
    path = Path(sys.argv[2])
    spoiled = json.loads(path.read_text())
    spoil(Path(sys.argv[1]).read_text(), spoiled)
    path.write_text(json.dumps(spoiled))
