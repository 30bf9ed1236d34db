"""Run the commands of each document as printed, from first to last."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from docker import DockerClient

from tests.integration.support import host, nodes, private_engine, processes, prometheus
from tests.integration.support.polling import PATIENCE
from tests.integration.support.private_engine import PrivateEngine
from tests.integration.support.stack import PROJECT, ROOT
from tests.support import documents
from tests.support.documents import Block, Document

BLOCK_WITHIN_S = 150
# Longer than the start of the command on a busy machine.
FOLLOWED_FOR_S = 20
INTERRUPTED = 124
TALOSCTL = "talosctl-1.11"
NODE_TAG = "v1.11.5"
IMAGES = ("library/alpine:latest", "team/tool:1")

# Commands to run before the commands of a document.
GIVEN = {
    "docs/cachectl.md": "make up\nprintf 'team/app:1\\nquay.io/team/tool:1\\n' > images.txt\n",
    "docs/images.md": "make up\n"
    "mkdir deploy\n"
    "echo '{image: alpine, tool: {image: \"quay.io/team/tool:1\"}}' > deploy/app.yaml\n"
    "cachectl images deploy > images.txt\ncachectl warm --images images.txt\n",
    "docs/metrics.md": "make up\n",
}

# The answer to every prompt.
TYPED = "a password\n"

RUNNABLE = [
    document
    for document in documents.all_documents()
    if any(block.mark is None for block in document.blocks())
]

pytestmark = pytest.mark.skipif(
    bool(private_engine.why_impossible()), reason=private_engine.why_impossible() or "possible"
)


@dataclass(frozen=True, slots=True)
class Machine:
    """A private engine, with an upstream that has the images of the documents."""

    engine: PrivateEngine
    client: DockerClient
    upstream_url: str

    def run(self, script: str, checkout: Path) -> tuple[int, str]:
        """Run commands in a checkout, and return exit code and output.

        A command that follows a log must be alone in its block, and is interrupted after a while.
        """
        follows = " -f " in script or "--follow" in script
        assert not follows or len(script.splitlines()) == 1, f"not alone: {script}"
        limit = ["timeout", "--signal=INT", str(FOLLOWED_FOR_S)] if follows else []
        done = subprocess.run(
            [*self.engine.enter, *limit, "bash", "-e", "-x", "-c", script],
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            input=TYPED,
            timeout=PATIENCE * BLOCK_WITHIN_S,
            cwd=checkout,
            env=_environment(checkout, self.engine.host),
        )
        code = done.returncode
        return (0 if follows and code == INTERRUPTED else code), done.stdout

    def clean(self) -> None:
        """Remove the resources that the commands created."""
        for container in self.client.containers.list(all=True, ignore_removed=True):
            if set(container.labels) & {f"{PROJECT}.stack", nodes.CLUSTER_LABEL}:
                container.remove(force=True, v=True)
        self.client.networks.prune()
        for volume in self.client.volumes.list(filters={"label": f"{PROJECT}.stack"}):
            volume.remove(force=True)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with (
        private_engine.running(tmp_path_factory.mktemp("engine")) as engine,
        engine.client() as client,
    ):
        folder = tmp_path_factory.mktemp("prometheus")
        prometheus.install(folder, engine.host, prometheus.OFFICIAL_IMAGE)
        port = host.free_port()
        with nodes.upstream(engine, port, tmp_path_factory.mktemp("node"), NODE_TAG) as pushed:
            registry = f"{host.LOOPBACK}:{port}"
            for image in IMAGES:
                _copy(engine, f"{registry}/{pushed.name}", f"{registry}/{image}")
            yield Machine(engine, client, f"http://{host.bridge_gateway(client)}:{port}")


@pytest.fixture
def checkout(machine: Machine, tmp_path: Path) -> Iterator[Path]:
    """A copy of this repository, adapted to the private engine."""
    folder = tmp_path / "checkout"
    for name in _files():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    for file in folder.glob("Pulumi.*.yaml"):
        _adapt(file, machine.upstream_url)
    _lend_what_is_installed(folder)
    yield folder
    machine.clean()


@pytest.mark.parametrize("document", RUNNABLE, ids=lambda one: one.name)
def test_the_commands_of_a_document_succeed(
    document: Document, machine: Machine, checkout: Path
) -> None:
    given = [Block(0, GIVEN[document.name], None)] if document.name in GIVEN else []
    for block in (*given, *document.blocks()):
        if block.mark is None:
            code, said = machine.run(block.script, checkout)
            assert code == 0, f"{document.name}:{block.line}: {code}\n{said}"
            assert "Traceback" not in said, said


def test_only_documents_that_are_run_have_commands_to_run_before() -> None:
    assert set(GIVEN) <= {document.name for document in RUNNABLE}


def _files() -> list[str]:
    """The files of a clone, including uncommitted files."""
    line = ("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    listed = processes.run(*line, cwd=ROOT).split("\0")
    return [name for name in listed if (ROOT / name).is_file()]


def _adapt(file: Path, upstream_url: str) -> None:
    """Replace all upstreams by that of the tests, and Talos nodes by stand-ins."""
    settings = yaml.safe_load(file.read_text())
    config = settings["config"]
    for upstream in config.get("caches", {}).get("upstreams", {}).values():
        upstream["remoteUrl"] = upstream_url
    for cluster in config.get("clusters", {}).values():
        cluster["talosctl"] = TALOSCTL
        cluster["extraArguments"] = ["--wait=false", "--with-init-node", "--skip-kubeconfig"]
    file.write_text(yaml.safe_dump(settings))


def _lend_what_is_installed(checkout: Path) -> None:
    """Link the tools and packages of this checkout, as if `make` had installed them."""
    (checkout / ".toolchain").symlink_to(ROOT / ".toolchain")
    venv = checkout / ".venv"
    processes.run(sys.executable, "-m", "venv", "--without-pip", venv)
    (packages,) = venv.glob("lib/python*/site-packages")
    (outer,) = Path(sys.prefix).glob("lib/python*/site-packages")
    (packages / "lent.pth").write_text(f"{outer}\n")
    program = venv / "bin" / "cachectl"
    program.write_text(
        f"#!{venv}/bin/python\n"
        f"import sys\nsys.path.insert(0, {str(checkout)!r})\n"
        "from talos_registry_cache.cli.__main__ import main\nsys.exit(main())\n"
    )
    program.chmod(0o755)
    stamp = (
        "from toolchain import virtualenv as v\n"
        "for lock in (v.RUNTIME, v.DEVELOPMENT, v.PROJECT):\n"
        "    v._stamp(lock).write_text(v._wanted(lock))\n"
    )
    processes.run(venv / "bin" / "python", "-c", stamp, cwd=checkout)


def _environment(checkout: Path, engine_host: str) -> dict[str, str]:
    """The environment of a user who has installed the project, without that of the test run."""
    lent = {Path(sys.prefix, "bin").resolve(), (ROOT / ".toolchain" / "bin").resolve()}
    inherited = os.environ["PATH"].split(os.pathsep)
    path = [folder for folder in inherited if Path(folder).resolve() not in lent]
    home = checkout.parent / "home"
    home.mkdir(exist_ok=True)
    return {
        "PATH": os.pathsep.join([str(checkout / ".venv" / "bin"), *path]),
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "DOCKER_HOST": engine_host,
        # The plugins are here if the machine has its own Pulumi.
        "PULUMI_HOME": os.environ.get("PULUMI_HOME", str(Path.home() / ".pulumi")),
    }


def _copy(engine: PrivateEngine, source: str, image: str) -> None:
    for arguments in (
        ("pull", source),
        ("tag", source, image),
        ("push", image),
        ("image", "rm", source, image),
    ):
        processes.run("docker", "--host", engine.host, *arguments)
