"""Runs integration tests on a private Docker Engine 29, with one of its image stores.

    python -m tests.integration.on_modern_engine overlay2 tests/integration/test_repair.py

Everything runs in the engine's network namespace: Pulumi, the clients and the tests.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.integration.support import private_engine
from toolchain import modern_engine

# The oldest API that Docker Engine 29.0 serves.
OLDEST_API = "1.44"
# Options of dockerd, by image store.
IMAGE_STORES = {
    "containerd": ("--feature", "containerd-snapshotter=true"),
    "overlay2": ("--feature", "containerd-snapshotter=false", "--storage-driver", "overlay2"),
}


def main(store: str, *arguments: str) -> int:
    """Run pytest with arguments of its own; return its exit code."""
    if reason := private_engine.why_impossible():
        sys.stderr.write(f"skipped: {reason}\n")
        return 0
    os.environ["PATH"] = modern_engine.search_path()
    os.environ["DOCKER_MIN_API_VERSION"] = OLDEST_API
    with (
        tempfile.TemporaryDirectory() as folder,
        private_engine.running(Path(folder), IMAGE_STORES[store]) as engine,
    ):
        pytest = [sys.executable, "-m", "pytest", *arguments]
        env = os.environ | {"DOCKER_HOST": engine.host}
        return subprocess.run([*engine.enter, *pytest], env=env, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
