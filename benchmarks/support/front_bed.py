"""An upstream registry behind a limited link, a cache, and programs that stand before the cache.

Everything runs on this machine without an engine: the upstream in a network namespace of its own,
the rest on 127.0.0.1.
"""

import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx2

from benchmarks.support import image_set, upstream
from benchmarks.support.image_set import Image
from benchmarks.support.session import CannotRunError
from tests.integration.support import host, network
from tests.integration.support.network import Link
from tests.integration.support.upstream import sent_in
from toolchain import debian
from toolchain.paths import CACHE

REGISTRY = CACHE / "bin" / "registry"
FILES = Path(__file__).with_name("fronts")
LIBRARIES = ("libjemalloc2", "libhwloc15", "libpcre3", "libyaml-cpp0.7")
UPSTREAM_PORT, METRICS_PORT = 5000, 5001
STARTS_WITHIN_S = 30
ENDS_WITHIN_S = 10
POLL_S = 0.05
SETTLES_S = 0.3


class Server:
    """A program that listens, with all processes it starts."""

    def __init__(
        self,
        command: Sequence[str | Path],
        folder: Path,
        at: tuple[str, int],
        env: Mapping[str, str] | None = None,
    ) -> None:
        self._command = command
        self._folder = folder
        self._at = at
        self._env = {**os.environ, **(env or {})}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it listens.

        Raises:
            CannotRunError: it does not.
        """
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                env=self._env,
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + STARTS_WITHIN_S
        while not host.accepts(*self._at):
            if self._process.poll() is not None or time.monotonic() > deadline:
                said = (self._folder / "log").read_text(errors="replace")[-1000:]
                raise CannotRunError(f"{self._command[0]} does not listen:\n{said}")
            time.sleep(POLL_S)

    def end(self) -> None:
        """End it, at once if it does not end by itself."""
        if self._process:
            self.signal(signal.SIGCONT)
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(ENDS_WITHIN_S)
            self.kill()

    def kill(self) -> None:
        """Kill all its processes."""
        while self.pids():
            self.signal(signal.SIGKILL)
            if self._process:
                self._process.wait()
            time.sleep(POLL_S)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to all its processes."""
        for pid in self.pids():
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def pids(self) -> list[int]:
        """Its processes that are not zombies."""
        if self._process is None:
            return []
        found = []
        for status in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):
                state, _, _, session = status.read_text().rpartition(")")[2].split()[:4]
                if int(session) == self._process.pid and state != "Z":
                    found.append(int(status.parent.name))
        return found

    def memory(self, field: str) -> int:
        """Bytes of a field of /proc/<pid>/status: VmRSS, VmHWM, RssFile."""
        total = 0
        for pid in self.pids():
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
            total += sum(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))
        return total * 1024


class Upstream:
    """A registry behind a limited link.

    Attributes:
        server: its process.
        link: its link.
        url: its URL.
    """

    def __init__(self, folder: Path, link: Link) -> None:
        self.link = link
        self.url = f"http://{link.address}:{UPSTREAM_PORT}"
        self._metrics = f"http://{link.address}:{METRICS_PORT}/metrics"
        debug = f"debug: {{addr: '{link.address}:{METRICS_PORT}', prometheus: {{enabled: true}}}}"
        at = (link.address, UPSTREAM_PORT)
        self.server = _registry(folder, at, http=debug, enter=network.enter(link.namespace))

    def push(self, sizes: Sequence[float]) -> Image:
        """Push a new image whose layers have these sizes in MB."""
        image = image_set.image(f"any/{secrets.token_hex(4)}:1", sizes)
        with httpx2.Client(base_url=self.url, trust_env=False, timeout=120) as http:
            upstream.push(http, image)
        return image

    def sent(self) -> int:
        """The bytes that it has sent since its start, once it is idle."""
        before, now = -1, self._sent()
        while now != before:
            time.sleep(SETTLES_S)
            before, now = now, self._sent()
        return now

    def _sent(self) -> int:
        return sent_in(httpx2.get(self._metrics, trust_env=False).text)


@contextmanager
def running_upstream(folder: Path) -> Iterator[Upstream]:
    """Run an upstream in a network namespace."""
    folder.mkdir()
    name = f"fronts-{secrets.token_hex(2)}"
    with network.switch(f"{name}s") as switch, network.namespace(f"{name}u") as space:
        made = Upstream(folder, switch.join(space))
        try:
            made.server.start()
            yield made
        finally:
            made.server.end()


@dataclass(frozen=True, slots=True)
class Site:
    """A cache with its front.

    Attributes:
        url: the front's URL.
        cache: the cache.
        fronts: the programs before it; the last one is what clients reach.
        stored: the cache's storage.
        own: the files of the fronts.
    """

    url: str
    cache: Server
    fronts: tuple[Server, ...]
    stored: Path
    own: Path

    def memory(self, field: str) -> int:
        """Bytes of memory of the fronts."""
        return sum(server.memory(field) for server in self.fronts)


@contextmanager
def running_site(
    folder: Path, source: str, names: Sequence[str], values: Mapping[str, str]
) -> Iterator[Site]:
    """Run a new cache with fronts before it.

    Args:
        folder: a folder to create.
        source: URL of the upstream.
        names: programs, in the order in which a request passes them; none for the cache alone.
        values: values for their configuration files, by name.
    """
    ports = {name: host.free_port() for name in ("CACHE", "PORT", "SHARE", "TAGS")}
    stored, own = folder / "cache", folder / "fronts"
    for each in (stored, own):
        each.mkdir(parents=True)
    proxy = f"proxy: {{remoteurl: '{source}', ttl: 0}}"
    cache = _registry(stored, (host.LOOPBACK, ports["CACHE"]), proxy=proxy)
    if len(names) == 1:
        ports["SHARE"] = ports["PORT"]
    where = {name: str(port) for name, port in ports.items()}
    filled = {**values, **where, "STORED": str(stored), "FOLDER": str(own), "MISSING": ""}
    missing = "nginx-before.conf" if len(names) > 1 else "nginx-alone.conf"
    filled["MISSING"] = _filled(FILES / missing, filled)
    fronts = tuple(PROGRAMS[name](own, filled) for name in reversed(names))
    url = f"http://{host.LOOPBACK}:{ports['PORT' if names else 'CACHE']}"
    with ExitStack() as stack:
        for server in (cache, *fronts):
            stack.callback(server.end)
            server.start()
        yield Site(url, cache, fronts, stored, own)


def _registry(
    folder: Path, at: tuple[str, int], *, http: str = "", proxy: str = "", enter: Sequence[str] = ()
) -> Server:
    config = folder / "config.yml"
    config.write_text(
        "version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\n"
        f"storage: {{filesystem: {{rootdirectory: {folder}}}}}\n"
        f"http: {{addr: '{at[0]}:{at[1]}'{', ' if http else ''}{http}}}\n{proxy}\n"
    )
    env = {"OTEL_TRACES_EXPORTER": "none"}
    return Server([*enter, REGISTRY, "serve", config], folder, at, env)


def _filled(file: Path, values: Mapping[str, str]) -> str:
    text = file.read_text()
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    return text.rstrip("\n")


def _libraries() -> Mapping[str, str]:
    folders = [debian.unpacked("trafficserver") / "usr" / "lib" / "trafficserver"]
    for package in LIBRARIES:
        found = debian.unpacked(package).rglob("*.so.*")
        folders += sorted({path.parent for path in found})
    return {"LD_LIBRARY_PATH": ":".join(str(folder.resolve()) for folder in folders)}


def _nginx(own: Path, values: Mapping[str, str]) -> Server:
    folder = own / "nginx"
    folder.mkdir()
    values = {**values, "FOLDER": str(folder)}
    config = folder / "nginx.conf"
    config.write_text(_filled(FILES / "nginx.conf", values) + "\n")
    program = debian.unpacked("nginx") / "usr" / "sbin" / "nginx"
    at = (host.LOOPBACK, int(values["PORT"]))
    return Server([program, "-c", config, "-e", folder / "log"], folder, at)


def _varnish(own: Path, values: Mapping[str, str]) -> Server:
    folder = own / "varnish"
    folder.mkdir()
    vcl = folder / "varnish.vcl"
    vcl.write_text(_filled(FILES / "varnish.vcl", values) + "\n")
    program = debian.unpacked("varnish") / "usr" / "sbin" / "varnishd"
    at = (host.LOOPBACK, int(values["SHARE"]))
    options: list[str | Path] = [
        "-F",
        "-j",
        "none",
        "-n",
        folder / "work",
        "-a",
        f"{at[0]}:{at[1]}",
        "-f",
        vcl,
    ]
    storage = values["VARNISH"].replace("FOLDER", str(folder))
    memory = [
        "-s",
        f"blobs={storage}",
        "-s",
        "Transient=malloc,64m",
        "-p",
        "thread_pool_min=10",
        "-l",
        "4m",
    ]
    return Server([program, *options, *memory], folder, at, _libraries())


def _traffic_server(own: Path, values: Mapping[str, str]) -> Server:
    folder = own / "ats"
    package = debian.unpacked("trafficserver")
    shutil.copytree(package / "etc" / "trafficserver", folder / "etc")
    for name in ("run", "logs", "cache"):
        (folder / name).mkdir()
    settings = {"records": "ats", "plugin": "ats-plugin", "cache": "ats-cache"}
    for name, file in settings.items():
        text = _filled(FILES / f"{file}.config", values)
        (folder / "etc" / f"{name}.config").write_text(f"{text}\n")
    (folder / "etc" / "storage.config").write_text(f"{folder / 'cache'} {values['ATS']}\n")
    usr = (package / "usr").resolve()
    root = {
        "prefix": folder, "exec_prefix": usr, "bindir": usr / "bin", "sbindir": usr / "sbin",
        "sysconfdir": folder / "etc", "datadir": folder, "includedir": folder,
        "libdir": usr / "lib", "libexecdir": usr / "lib" / "trafficserver" / "modules",
        "localstatedir": folder, "runtimedir": folder / "run", "logdir": folder / "logs",
        "cachedir": folder / "cache",
    }  # fmt: skip
    runroot = folder / "runroot.yaml"
    runroot.write_text("".join(f"{key}: {path}\n" for key, path in root.items()))
    env = {**_libraries(), "TS_RUNROOT": str(runroot)}
    at = (host.LOOPBACK, int(values["SHARE"]))
    return Server([package / "usr" / "bin" / "traffic_server"], folder, at, env)


PROGRAMS = {"nginx": _nginx, "Varnish": _varnish, "ATS": _traffic_server}
