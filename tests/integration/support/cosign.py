"""Signatures that cosign makes with keys of its own, and their places in the storage of a cache."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from docker.models.containers import Container

from tests.integration.support import processes
from tests.integration.support.stored import STORED
from tests.integration.support.upstream import Pushed

# Options of `cosign sign` for the format before the bundles.
OLD_FORMAT = ("--new-bundle-format=false",)
_WITHOUT_A_LOG = ("--use-signing-config=false", "--tlog-upload=false")


@dataclass(frozen=True, slots=True)
class Cosign:
    """cosign with a key.

    Attributes:
        folder: the folder of its key.
        name: the name of its key.
        enter: command prefix that enters the network namespace of the registry.
    """

    folder: Path
    name: str = "cosign"
    enter: Sequence[str] = ()

    @property
    def public_key(self) -> Path:
        """The file with its public key."""
        return self.folder / f"{self.name}.pub"

    def make_key(self) -> None:
        """Make its key."""
        self._run("generate-key-pair", f"--output-key-prefix={self.name}")

    def sign(self, address: str, image: Pushed, *options: str) -> None:
        """Sign an image in the registry at an address."""
        self._run(
            "sign", f"--key={self.name}.key", "--allow-http-registry", *_WITHOUT_A_LOG, *options,
            f"{address}/{image.repository}@{image.digest}",
        )  # fmt: skip

    def _run(self, *arguments: str) -> None:
        # No terminal, and no password for its key.
        env = {**os.environ, "COSIGN_PASSWORD": "", "COSIGN_YES": "true"}
        processes.run(*self.enter, "cosign", *arguments, cwd=self.folder, env=env)


def tag(image: Pushed, options: Sequence[str] = ()) -> str:
    """The tag of the signature that `cosign sign` makes with these options."""
    return image.digest.replace(":", "-") + (".sig" if options else "")


def remove(registry: Container, image: Pushed, tag: str) -> None:
    """Remove a signature from the storage of a cache."""
    tags = f"{STORED}/repositories/{image.repository}/_manifests/tags"
    removed = registry.exec_run(["busybox", "rm", "-r", f"{tags}/{tag}"])
    assert removed.exit_code == 0, removed.output
