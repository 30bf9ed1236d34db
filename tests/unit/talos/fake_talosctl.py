"""A fake talosctl that creates nodes in the engine of `fake_docker`.

It works in steps, so that a test can make it fail or hang after any of them. The order is
talosctl's own (pkg/provision/providers/docker, and the command's create.go): state folder, network,
nodes, `state.yaml`, talosconfig, wait, kubeconfig.
"""

import json
from pathlib import Path

from talos_registry_cache.talos.versions import Talosctl, Version
from tests.unit.talos import fake_docker, programs

STEPS = ("folder", "network", "controlplane", "worker", "state", "talosconfig", "kubeconfig")

SCRIPT = """
import json, os, pathlib, sys, time
engine = pathlib.Path({engine!r})
calls = pathlib.Path({calls!r})
arguments = sys.argv[1:]
if arguments == ["version", "--client"]:
    sys.exit(print({version!r}))
with calls.open("a") as file:
    file.write(json.dumps([arguments, dict(os.environ)]) + "\\n")
if arguments[0] == "kubeconfig":
    assert "context: " in pathlib.Path(arguments[arguments.index("--talosconfig") + 1]).read_text()
    with open(arguments[1], "x") as file:
        sys.exit(file.write({kubeconfig!r}) and 0)
if arguments[0] == "patch":
    assert "context: " in pathlib.Path(arguments[arguments.index("--talosconfig") + 1]).read_text()
    sys.exit(0)
name, state = (arguments[arguments.index(flag) + 1] for flag in ("--name", "--state"))
folder = pathlib.Path(state, name)

def write(path, text):
    pathlib.Path(path).write_text(text)

def make(kind, thing):
    print("creating", thing["Name"], flush=True)
    write(engine / kind / (thing["Id"] + ".json"), json.dumps(thing))

def step(which):
    if which == "folder":
        if folder.exists():
            sys.exit("state directory " + str(folder) + " already exists")
        folder.mkdir(parents=True)
    elif which == "network":
        make("networks", {network})
    elif which in ("controlplane", "worker"):
        make("containers", {nodes}[which])
    elif which == "state":
        write(folder / "state.yaml", {state_yaml!r})
    elif which == "talosconfig":
        path = next(arguments[at + 1] for at, word in enumerate(arguments)
                    if word in ("--talosconfig", "--talosconfig-destination"))
        assert "contexts: {{}}" in pathlib.Path(path).read_text()
        write(path, "context: " + name)
    elif which == "kubeconfig":
        assert ":" not in os.environ["KUBECONFIG"]
        write(os.environ["KUBECONFIG"], {kubeconfig!r})
    elif which == "configs":
        write("controlplane.yaml", "the keys of the cluster")
    elif which == "stop":
        node = {nodes}["worker"]
        make("containers", node | {{"State": node["State"] | {stopped}}})
    elif which == "check":
        print("waiting for etcd to be healthy: ...", flush=True)
    elif which == "hang":
        time.sleep(60)
    elif which == "fail":
        print("something is wrong", file=sys.stderr)
        sys.exit(1)
    elif which.startswith("port "):
        port, runs = which.split()[1:]
        if len(calls.read_text().splitlines()) <= int(runs):
            sys.exit("Bind for 127.0.0.1:" + port + " failed: port is already allocated")
    elif which == "destroy":
        import shutil
        shutil.rmtree(folder)

for which in {steps} if arguments[1] == "create" else {destroy_steps}:
    step(which)
"""


class FakeTalosctl:
    """A fake talosctl for one cluster."""

    def __init__(self, folder: Path, cluster: str, engine: Path) -> None:
        self._folder = folder
        self._cluster = cluster
        self._engine = engine
        self.calls_file = folder / "calls"
        self.version = "v1.13.0"
        self.state_yaml = "clusterinfo: {}"
        self.kubeconfig = f"current-context: admin@{cluster}"
        self.stopped = {"Status": "exited", "ExitCode": 1}
        self.does(*STEPS)

    def does(self, *steps: str, destroying: tuple[str, ...] = ("destroy",)) -> None:
        """Set the steps of the next runs."""
        cluster = self._cluster
        controlplane = fake_docker.container(
            cluster,
            f"{cluster}-controlplane-1",
            type_="controlplane",
            address="10.5.0.2",
            ports={"6443/tcp": "0.0.0.0:32771", "50000/tcp": "0.0.0.0:32772"},
        )
        worker = fake_docker.container(cluster, f"{cluster}-worker-1")
        script = SCRIPT.format(
            engine=str(self._engine),
            calls=str(self.calls_file),
            network=fake_docker.network(cluster),
            nodes={"controlplane": controlplane, "worker": worker},
            version=programs.VERSION_OUTPUT.format(tag=self.version),
            state_yaml=self.state_yaml,
            kubeconfig=self.kubeconfig,
            stopped=self.stopped,
            steps=list(steps),
            destroy_steps=list(destroying),
        )
        programs.python(self._folder / "talosctl", script)

    def talosctl(self, version: Version = Version(1, 13)) -> Talosctl:  # noqa: B008
        """The result of `versions.find` for it."""
        return Talosctl(self.path, version)

    @property
    def path(self) -> str:
        """Its path."""
        return str(self._folder / "talosctl")

    @property
    def calls(self) -> list[tuple[list[str], dict[str, str]]]:
        """Arguments and environment of each run."""
        if not self.calls_file.exists():
            return []
        return [tuple(json.loads(line)) for line in self.calls_file.read_text().splitlines()]
