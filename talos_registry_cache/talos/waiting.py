"""How long the creation of a cluster waits for its boot, and requests to a cluster that boots.

talosctl from 1.12 on has no flag for this. It always waits until the cluster is healthy, and only
then fetches the kubeconfig. So in all versions, talosctl is ended when it begins to wait. By then
the nodes exist and etcd is bootstrapped, so the cluster boots by itself.
"""

import functools
import http.client
import ssl
import time
from base64 import b64decode
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from urllib.parse import urlsplit

import yaml

from talos_registry_cache.talos import process
from talos_registry_cache.talos.cluster_files import ClusterFiles, write_private
from talos_registry_cache.talos.errors import CommandError

# The first check after the bootstrap (pkg/cluster/check of Talos, v0.4 to v1.14).
FIRST_CHECK = "waiting for etcd"
ANSWERS_WITHIN_S = 10.0
PATCHED_WITHIN_S = 60.0
POLL_S = 1.0

Show = Callable[[str], None]


class Wait(StrEnum):
    """What the creation of a cluster waits for; the value is the one in the settings."""

    HEALTHY = "healthy"
    API = "api"
    NONE = "none"


class _BootstrappedError(Exception):
    """talosctl has bootstrapped the cluster."""


@contextmanager
def ended_early(wait: Wait, on_line: Show) -> Iterator[Show]:
    """End `talosctl cluster create`, run in this block, once the cluster boots by itself.

    Args:
        wait: what is waited for; nothing is ended for `healthy`.
        on_line: called with each line of talosctl's output.

    Yields:
        The callback for talosctl's output, which raises at its first check.
    """
    has_bootstrapped = False

    def watch(line: str) -> None:
        nonlocal has_bootstrapped
        if has_bootstrapped:
            # talosctl prints that it was ended.
            return
        if wait is not Wait.HEALTHY and line.startswith(FIRST_CHECK):
            has_bootstrapped = True
            raise _BootstrappedError
        on_line(line)

    try:
        yield watch
    except _BootstrappedError:
        return


@dataclass(frozen=True, slots=True)
class Access:
    """The access to a cluster that boots.

    Attributes:
        talosctl: path of talosctl.
        files: the cluster's files.
        node: address of a control plane node.
        endpoint: URL of the Kubernetes API on this machine.
    """

    talosctl: str
    files: ClusterFiles
    node: str
    endpoint: str

    def wait_for(self, wait: Wait, deadline: float, on_line: Show) -> None:
        """Write the kubeconfig, and wait for the Kubernetes API unless `wait` is `none`.

        A node has the kubeconfig as soon as its Talos API answers.

        Args:
            wait: what is waited for.
            deadline: the last time on the monotonic clock for another attempt.
            on_line: called with a line for each attempt, as talosctl prints them.

        Raises:
            CommandError: the node or the API did not answer in time.
        """
        with self.files.log.open("a", encoding="utf-8") as log:
            log.write(f"talosctl was ended, because the setting is `wait: {wait}`\n")
        what = f"the kubeconfig of {self.node}"
        _retry(self._fetch_kubeconfig, what, self.files.log, deadline, on_line)
        if wait is Wait.API:
            what = f"the Kubernetes API at {self.endpoint}"
            _retry(self._ask, what, self.files.log, deadline, on_line)

    def _fetch_kubeconfig(self) -> None:
        path = self.files.kubeconfig
        # talosctl would add to an existing file.
        path.unlink(missing_ok=True)
        argv = [
            self.talosctl, "kubeconfig", str(path),
            "--talosconfig", str(self.files.talosconfig), "--nodes", self.node,
        ]  # fmt: skip
        process.capture(argv, within_s=ANSWERS_WITHIN_S)
        config = yaml.safe_load(path.read_bytes())
        for cluster in config["clusters"]:
            # As in `cluster create`, since only Linux reaches the nodes at their own addresses.
            cluster["cluster"]["server"] = self.endpoint
        write_private(path, yaml.safe_dump(config, sort_keys=False))

    def _ask(self) -> None:
        """Ask the Kubernetes API; a refusal for lack of credentials is an answer as well.

        Raises:
            OSError: nothing answers.
            http.client.HTTPException: an error of the server.
        """
        config = yaml.safe_load(self.files.kubeconfig.read_bytes())
        ca = b64decode(config["clusters"][0]["cluster"]["certificate-authority-data"]).decode()
        connection = http.client.HTTPSConnection(
            urlsplit(self.endpoint).netloc,
            timeout=ANSWERS_WITHIN_S,
            context=ssl.create_default_context(cadata=ca),
        )
        with closing(connection):
            connection.request("GET", "/readyz")
            status = connection.getresponse().status
        if status >= http.client.INTERNAL_SERVER_ERROR:
            raise http.client.HTTPException(f"HTTP status {status}")


def patch(
    talosctl: str, files: ClusterFiles, patch: Path, nodes: Sequence[str], on_line: Show
) -> None:
    """Change the machine configuration of nodes without a reboot, once they answer.

    Args:
        talosctl: path of talosctl.
        files: the cluster's files.
        patch: a patch of the machine configuration.
        nodes: the addresses of the nodes.
        on_line: called with a line for each attempt.

    Raises:
        CommandError: a node refused the patch, or did not answer in time.
    """
    argv = [
        talosctl, "patch", "machineconfig",
        "--talosconfig", str(files.talosconfig), "--nodes", ",".join(nodes),
        "--mode", "no-reboot", "--patch", f"@{patch}",
    ]  # fmt: skip
    attempt = functools.partial(process.capture, argv, within_s=ANSWERS_WITHIN_S)
    deadline = time.monotonic() + PATCHED_WITHIN_S
    _retry(attempt, f"the nodes to take {patch.name}", files.log, deadline, on_line)


def _retry(
    attempt: Callable[[], object], what: str, log_file: Path, deadline: float, on_line: Show
) -> None:
    with log_file.open("a", encoding="utf-8") as log:

        def say(line: str) -> None:
            log.write(f"{line}\n")
            on_line(line)

        say(f"waiting for {what}: ...")
        while True:
            try:
                attempt()
            except (CommandError, OSError, http.client.HTTPException) as failure:
                # The engine accepts connections to a port where nothing listens yet.
                is_closed = isinstance(failure, ConnectionError | ssl.SSLEOFError)
                error = "nothing answers" if is_closed else failure
                say(f"waiting for {what}: {error}")
                if time.monotonic() >= deadline:
                    raise CommandError(
                        f"waiting for {what} took too long: {error}\n  full log: {log_file}"
                    ) from None
            else:
                say(f"waiting for {what}: OK")
                return
            time.sleep(POLL_S)
