"""Selects the container engine that the docker CLI would use.

Only the standard library is imported, since the toolchain selects the engine before any package is
installed.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from talos_registry_cache.errors import ReportedError

DEFAULT_HOST = "unix:///var/run/docker.sock"
DEFAULT_CONTEXT = "default"


class SelectionError(ReportedError):
    """The selected Docker context does not exist or cannot be read."""


@dataclass(frozen=True, slots=True)
class Selection:
    """The address of a container engine.

    Attributes:
        host: the address, as in DOCKER_HOST.
        source: what selected it, for messages: DOCKER_HOST, a Docker context or the default.
        is_context: whether a Docker context other than `default` selected it.
        certificates: directory of ca.pem, cert.pem and key.pem; empty without TLS.
        verifies: whether the certificate of the engine is verified.
    """

    host: str
    source: str
    is_context: bool = False
    certificates: str = ""
    verifies: bool = False

    def __str__(self) -> str:
        """The address and what selected it."""
        return f"{self.host} ({self.source})"

    def variables(self) -> dict[str, str]:
        """The environment variables that select this engine; an empty value means unset."""
        return {
            "DOCKER_HOST": self.host,
            "DOCKER_CONTEXT": "",
            "DOCKER_CERT_PATH": self.certificates,
            "DOCKER_TLS_VERIFY": "1" if self.verifies else "",
        }

    def export(self) -> None:
        """Make this process and its children use this engine, whichever Docker client they have.

        The docker CLI prefers DOCKER_HOST to DOCKER_CONTEXT, Pulumi's Docker provider the opposite:
        DOCKER_CONTEXT is unset.
        """
        for name, value in self.variables().items():
            if value:
                os.environ[name] = value
            else:
                os.environ.pop(name, None)


def select(environment: Mapping[str, str] = os.environ) -> Selection:
    """Select an engine in the order of the docker CLI.

    The order is DOCKER_HOST, DOCKER_CONTEXT, `currentContext` in the CLI's configuration file, and
    the default socket.

    Raises:
        SelectionError: the selected context does not exist or cannot be read.
    """
    folder = Path(environment.get("DOCKER_CONFIG") or Path.home() / ".docker")
    if host := environment.get("DOCKER_HOST"):
        verifies = bool(environment.get("DOCKER_TLS_VERIFY"))
        uses_tls = verifies or bool(environment.get("DOCKER_TLS"))
        certificates = environment.get("DOCKER_CERT_PATH") or str(folder)
        return Selection(
            host, "DOCKER_HOST", certificates=certificates if uses_tls else "", verifies=verifies
        )
    if name := environment.get("DOCKER_CONTEXT"):
        return _context(folder, name, "DOCKER_CONTEXT")
    file = folder / "config.json"
    return _context(folder, _current_context(file), str(file))


def _current_context(file: Path) -> str:
    # The docker CLI also ignores a file that it cannot read.
    with suppress(OSError, ValueError, AttributeError):
        return json.loads(file.read_text()).get("currentContext") or DEFAULT_CONTEXT
    return DEFAULT_CONTEXT


def _context(folder: Path, name: str, named_by: str) -> Selection:
    if name == DEFAULT_CONTEXT:
        return Selection(DEFAULT_HOST, "the default")
    ident = hashlib.sha256(name.encode()).hexdigest()
    file = folder / "contexts" / "meta" / ident / "meta.json"
    try:
        endpoint: dict[str, Any] = json.loads(file.read_text())["Endpoints"]["docker"]
        host, skips_verification = endpoint["Host"], endpoint.get("SkipTLSVerify", False)
    except FileNotFoundError:
        problem = "does not exist"
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        problem = f"cannot be read from {file} ({error!r})"
    else:
        certificates = folder / "contexts" / "tls" / ident / "docker"
        uses_tls = certificates.is_dir()
        return Selection(
            host or DEFAULT_HOST,
            f"the Docker context {name}",
            is_context=True,
            certificates=str(certificates) if uses_tls else "",
            verifies=uses_tls and not skips_verification,
        )
    raise SelectionError(
        f"the Docker context {name}, which {named_by} selects, {problem}; "
        "select another one with `docker context use`, or set DOCKER_HOST"
    )
