"""A real registry that has the referrers API of OCI distribution-spec 1.1, as a process."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from tests.integration.support import host
from tests.integration.support.upstream import Server

ENDS_WITHIN_S = 20


@contextmanager
def running(address: str) -> Iterator[Server]:
    """Run one until the end; it keeps its images in memory.

    Args:
        address: the address of this machine to listen on.
    """
    server = Server(address, host.free_port())
    process = subprocess.Popen(["referrers-registry", f"{address}:{server.port}"])
    try:
        server.wait()
        yield server
    finally:
        process.kill()
        process.wait(ENDS_WITHIN_S)
