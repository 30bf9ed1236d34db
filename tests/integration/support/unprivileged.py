"""Engines that run as the user `nobody`, as on the machine of a user without root."""

import os
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.integration.support import processes
from tests.integration.support.polling import eventually

USER = "nobody"
ID = "65534"
TUN = "/dev/net/tun"
SUBORDINATE_IDS = f"{USER}:200000:65536\n"
# Some processes of an engine leave its session, and would outlive it. None can leave a PID
# namespace, which ends with the tests, however those end. Its first process is a shell, because one
# that changes its user loses the signal that `--kill-child` has set for it.
NAMESPACE = (
    "setpriv", "--pdeathsig=KILL",
    "unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", '"$@"; exit', "sh",
)  # fmt: skip
ANSWERS_WITHIN_S = 60
STOPS_WITHIN_S = 60


def why_impossible() -> str:
    """Why no engine can run as that user here; empty if it can."""
    if os.geteuid() != 0:
        return "changing the user needs root"
    if not Path(TUN).exists():
        return f"this machine has no {TUN}"
    missing = [tool for tool in ("setpriv", "unshare") if shutil.which(tool) is None]
    return f"changing the user needs {', '.join(missing)}" if missing else ""


@contextmanager
def folder() -> Iterator[Path]:
    """A directory of that user, below directories that it may enter."""
    with tempfile.TemporaryDirectory(prefix="it-", dir="/var/tmp") as name:
        made = Path(name)
        made.chmod(0o711)
        own = made / "own"
        own.mkdir()
        os.chown(own, int(ID), int(ID))
        yield own


def command(folder: Path) -> Sequence[str]:
    """The command prefix that runs a program as that user, with subordinate IDs and a TUN device.

    These are visible to the program only.
    """
    ids, tun = folder.parent / "ids", folder.parent / "tun"
    ids.write_text(SUBORDINATE_IDS)
    processes.run("mknod", "--mode=666", tun, "c", "10", "200")
    mounts = [
        f"mount --bind {shlex.quote(str(source))} {target}"
        for source, target in (
            (ids, "/etc/subuid"), (ids, "/etc/subgid"), (tun, TUN),
        )
    ]  # fmt: skip
    as_user = f"exec setpriv --reuid={ID} --regid={ID} --clear-groups"
    home = f"env HOME={shlex.quote(str(folder))} XDG_RUNTIME_DIR={shlex.quote(str(folder))}"
    return (
        "unshare",
        "--mount",
        "sh",
        "-c",
        " && ".join([*mounts, f'{as_user} {home} "$@"']),
        "sh",
    )


@contextmanager
def serving(
    socket: Path, service: Sequence[str | Path], environment: Mapping[str, str], log: Path
) -> Iterator[str]:
    """Run an engine in a PID namespace until the end; yields its address, as in DOCKER_HOST.

    Args:
        socket: the socket that it listens on.
        service: its command line.
        environment: variables for it.
        log: the file for its output.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*NAMESPACE, *service],
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        host = f"unix://{socket}"
        eventually(
            lambda: _answers(host, process, log), within_s=ANSWERS_WITHIN_S, what="it answers"
        )
        yield host
    finally:
        _end(process)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End all processes of a namespace, given that of `unshare`, which waits for the first one.

    The first process has ended when all others have.
    """
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    for first in children.read_text().split() if process.poll() is None else ():
        os.kill(int(first), signal.SIGKILL)
    process.wait(STOPS_WITHIN_S)


def _answers(host: str, process: "subprocess.Popen[bytes]", log: Path) -> bool:
    assert process.poll() is None, log.read_text()[-3000:]
    version = ["docker", "--host", host, "version"]
    return processes.finish(version, within_s=ANSWERS_WITHIN_S).returncode == 0
