"""The environment of what a preview runs: what is allowed of the reviewer's own, and nothing else.

A program that is previewed is somebody else's. It gets no token, password or agent that happens to
be in the environment, and a home folder of its own.
"""

import os
from collections.abc import Mapping
from pathlib import Path

ALLOWED = frozenset(
    {
        # Where Pulumi, Python and talosctl are, and who Pulumi's lock says has it.
        "PATH", "USER", "LOGNAME",
        "LANG", "LANGUAGE", "TZ", "TMPDIR",
        # The engine: the toolchain has found it, and the preview brings the base up on it.
        "DOCKER_HOST", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH", "DOCKER_API_VERSION",
        # Which authorities a company's network has.
        "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE",
        "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION",
    }
)  # fmt: skip
PROXIES = frozenset({"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"})


def allowed(inherited: Mapping[str, str]) -> Mapping[str, str]:
    """What a previewed program may see of an environment.

    A proxy whose URL has a password is left out.
    """
    return {
        name: text
        for name, text in inherited.items()
        if name in ALLOWED
        or name.startswith("LC_")
        or (name.upper() in PROXIES and "@" not in text)
    }


def new_home(folder: Path, inherited: Mapping[str, str]) -> Path:
    """Make a home folder that has the plugins of the reviewer's Pulumi, and no login of it.

    Args:
        folder: where it is made.
        inherited: the reviewer's environment.
    """
    home = folder / "home"
    pulumi = home / ".pulumi"
    pulumi.mkdir(parents=True)
    own = Path(inherited.get("PULUMI_HOME") or Path.home() / ".pulumi") / "plugins"
    if own.is_dir():
        (pulumi / "plugins").symlink_to(own.resolve())
    return home


def make(folder: Path) -> Mapping[str, str]:
    """The environment of a run, with a home folder in the run's own folder."""
    home = new_home(folder, os.environ)
    return {**allowed(os.environ), "HOME": str(home), "PULUMI_HOME": str(home / ".pulumi")}
