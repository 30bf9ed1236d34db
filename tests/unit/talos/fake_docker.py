"""A fake container engine, used by the real client over a real socket.

Containers and networks are JSON files in the form of the engine's API, which `fake_talosctl`
writes.
"""

import base64
import io
import json
import shutil
import tarfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from docker import DockerClient

API_VERSION = "1.43"
IMAGE = "sha256:0"


class FakeDocker:
    """The engine: `containers` and `networks` are folders of JSON files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.address = f"unix://{folder.parent}/docker.sock"
        self.removed: list[str] = []
        self.started: list[str] = []
        self.restarted: list[str] = []
        for kind in ("containers", "networks", "images"):
            (folder / kind).mkdir(parents=True)
        self.nodes_log("booted")
        image = {"Id": IMAGE, "Architecture": "arm64"}
        (folder / "images" / f"{IMAGE}.json").write_text(json.dumps(image))

    def add_node(self, cluster: str, name: str, **more: Any) -> None:
        """Add a container with talosctl's labels."""
        node = container(cluster, name, **more)
        (self.folder / "containers" / f"{node['Id']}.json").write_text(json.dumps(node))

    def add_network(self, cluster: str) -> None:
        """Add a network with talosctl's labels."""
        made = network(cluster)
        (self.folder / "networks" / f"{made['Id']}.json").write_text(json.dumps(made))

    def nodes_log(self, text: str) -> None:
        """Set what all nodes have logged."""
        (self.folder / "logs").write_text(text)

    def put_file(self, node: str, path: str, text: str) -> None:
        """Write a file of a node."""
        file = self.folder / "files" / node / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def stop_node(self, name: str, status: str = "exited") -> None:
        """Stop a node, which has no address until it is started again."""
        self.change_node(name, status=status, address="")

    def change_node(self, name: str, *, status: str, address: str) -> None:
        path = self.folder / "containers" / f"{name}.json"
        node = json.loads(path.read_text())
        node["State"]["Status"] = status
        (network,) = node["NetworkSettings"]["Networks"].values()
        network["IPAddress"] = address
        path.write_text(json.dumps(node))

    def refuse(self, name: str, how: str) -> None:
        """Make starting a node fail (`refuses`), or make the node exit at once (`ends`)."""
        (self.folder / f"{name}.{how}").touch()

    def remove_node(self, name: str) -> None:
        (self.folder / "containers" / f"{name}.json").unlink()

    def remove_all(self) -> None:
        for path in self.folder.glob("*/*.json"):
            path.unlink()

    @property
    def names(self) -> list[str]:
        """All containers and networks."""
        kinds = ("containers", "networks")
        return sorted(path.stem for kind in kinds for path in (self.folder / kind).glob("*.json"))


def container(
    cluster: str,
    name: str,
    *,
    type_: str = "worker",
    address: str = "10.5.0.3",
    status: str = "running",
    created: str = "2026-11-27T14:00:00.123456789Z",
    ports: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """A node in the form of the API."""
    bindings = {
        port: [{"HostIp": address.rpartition(":")[0], "HostPort": address.rpartition(":")[2]}]
        for port, address in (ports or {}).items()
    }
    return {
        "Id": name,
        "Name": f"/{name}",
        "Created": created,
        "Image": IMAGE,
        # With a terminal, the log is plain text.
        "Config": {"Labels": labels(cluster) | {"talos.type": type_}, "Tty": True},
        "HostConfig": {"Memory": 256 * 2**20},
        "State": {
            "Status": status,
            "ExitCode": 0,
            "OOMKilled": False,
            "StartedAt": "2026-11-27T14:00:01.5Z",
        },
        "NetworkSettings": {
            "Ports": {**bindings, "10250/tcp": None},
            "Networks": {cluster: {"IPAddress": address, "IPAMConfig": {"IPv4Address": address}}},
        },
    }


def network(cluster: str) -> dict[str, Any]:
    """A network in the form of the API."""
    return {
        "Id": f"net-{cluster}",
        "Name": cluster,
        "Labels": labels(cluster),
        "IPAM": {"Config": [{"Subnet": "10.5.0.0/24", "Gateway": "10.5.0.1"}]},
    }


def labels(cluster: str) -> dict[str, str]:
    return {"talos.owned": "true", "talos.cluster.name": cluster}


@contextmanager
def serving(folder: Path) -> Iterator[tuple[FakeDocker, DockerClient]]:
    """Yield an engine and its client."""
    engine = FakeDocker(folder / "engine")
    server = _Server(engine.address.removeprefix("unix://"), _handler(engine))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    client = DockerClient(base_url=engine.address, version=API_VERSION, timeout=10)
    try:
        yield engine, client
    finally:
        client.close()
        server.shutdown()
        server.server_close()
        thread.join()
        shutil.rmtree(engine.folder)


class _Server(ThreadingMixIn, UnixStreamServer):
    daemon_threads = True


def _handler(engine: FakeDocker) -> type[BaseHTTPRequestHandler]:
    return type("Handler", (_Handler,), {"engine": engine})


class _Handler(BaseHTTPRequestHandler):
    engine: FakeDocker

    def do_GET(self) -> None:
        if self.path == "/version":
            self._answer(200, {"ApiVersion": API_VERSION})
            return
        last = urlsplit(self.path).path.rpartition("/")[2]
        if last in {"version", "info"}:
            self._answer(200, {"DockerRootDir": str(self.engine.folder), "Arch": "amd64"})
            return
        if last == "logs":
            self._answer(200, (self.engine.folder / "logs").read_text())
            return
        if last == "archive":
            self._send_file()
            return
        folder, *name, query = self._asked()
        if name != ["json"] and name:
            self._show(folder / f"{name[0]}.json")
            return
        wanted = json.loads(query.get("filters", ["{}"])[0]).get("label", [])
        found = [json.loads(path.read_text()) for path in folder.iterdir()]
        self._answer(200, [each for each in found if _has(each, wanted)])

    def do_DELETE(self) -> None:
        folder, name, query = self._asked()
        path = folder / f"{name}.json"
        if not path.exists():
            self._answer(404, {"message": f"no such object: {name}"})
        elif (self.engine.folder / f"{name}.stuck").exists():
            self._answer(403, {"message": f"{name} has active endpoints"})
        else:
            path.unlink()
            with_volumes = " with its volumes" if query.get("v") == ["True"] else ""
            self.engine.removed.append(f"{name}{with_volumes}")
            self._answer(204, None)

    def do_POST(self) -> None:
        folder, name, what, _ = self._asked()
        if what == "restart":
            self.engine.restarted.append(name)
            self._answer(204, None)
            return
        assert what in {"start", "unpause"}
        if (self.engine.folder / f"{name}.refuses").exists():
            self._answer(500, {"message": f"{name}: address already in use"})
            return
        self.engine.started.append(f"{name} ({what})")
        (network,) = json.loads((folder / f"{name}.json").read_text())["NetworkSettings"][
            "Networks"
        ].values()
        ends = (self.engine.folder / f"{name}.ends").exists()
        address = "" if ends else network["IPAMConfig"]["IPv4Address"]
        self.engine.change_node(name, status="exited" if ends else "running", address=address)
        self._answer(204, None)

    def _asked(self) -> tuple[Any, ...]:
        """The folder of the requested kind, further parts of the path, and the query."""
        parts = urlsplit(self.path)
        _, _, kind, *words = parts.path.split("/")
        return (self.engine.folder / kind, *words, parse_qs(parts.query))

    def _send_file(self) -> None:
        _, name, _, query = self._asked()
        file = self.engine.folder / "files" / name / query["path"][0].lstrip("/")
        if not file.exists():
            self._answer(404, {"message": "no such file"})
            return
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as tar:
            tar.add(file, file.name)
        stat = json.dumps({"name": file.name, "size": file.stat().st_size})
        self.send_response(200)
        self.send_header("X-Docker-Container-Path-Stat", base64.b64encode(stat.encode()).decode())
        self.end_headers()
        self.wfile.write(packed.getvalue())

    def _show(self, path: Path) -> None:
        if path.exists():
            self._answer(200, json.loads(path.read_text()))
        else:
            self._answer(404, {"message": "no such object"})

    def _answer(self, code: int, body: Any) -> None:
        text = body if isinstance(body, str) else json.dumps(body)
        content = b"" if body is None else text.encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if content:
            self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def _has(shown: Mapping[str, Any], wanted: Sequence[str]) -> bool:
    found = shown.get("Labels") or shown.get("Config", {}).get("Labels", {})
    return {f"{key}={value}" for key, value in found.items()} >= set(wanted)
