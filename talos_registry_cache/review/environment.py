"""The environment of a preview: an allow-list of the user's own, and a state of its own.

The previewed program is somebody else's. It sees no token, password or agent of the user, and gets
a temporary home folder.
"""

import os
import secrets
from collections.abc import Mapping
from pathlib import Path

SIMULATE = "TALOS_REGISTRY_CACHE_SIMULATE"

ALLOWED = frozenset(
    {
        # Where Pulumi, Python and talosctl are, and whom Pulumi's lock names.
        "PATH", "USER", "LOGNAME",
        "LANG", "LANGUAGE", "TZ", "TMPDIR",
        # The engine that the base is brought up on.
        "DOCKER_HOST", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH", "DOCKER_API_VERSION",
        # The certificate authorities of a company's network.
        "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE",
        "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION",
    }
)  # fmt: skip
PROXIES = frozenset({"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"})


def allowed(inherited: Mapping[str, str]) -> Mapping[str, str]:
    """Return the variables that a previewed program may see.

    A proxy whose URL has a password is left out.
    """
    return {
        name: text
        for name, text in inherited.items()
        if name in ALLOWED
        or name.startswith("LC_")
        or (name.upper() in PROXIES and "@" not in text)
    }


def create(folder: Path, inherited: Mapping[str, str] = os.environ) -> Mapping[str, str]:
    """Create an environment whose home folder, state and passphrase are in a folder of their own.

    The home folder has the plugins of the user's Pulumi, and no login.

    Args:
        folder: the folder.
        inherited: the user's environment.
    """
    home, state, passphrase = (folder / name for name in ("home", "state", "passphrase"))
    pulumi = home / ".pulumi"
    pulumi.mkdir(parents=True)
    plugins = Path(inherited.get("PULUMI_HOME") or Path.home() / ".pulumi") / "plugins"
    if plugins.is_dir():
        (pulumi / "plugins").symlink_to(plugins.resolve())
    state.mkdir()
    passphrase.touch(mode=0o600)
    passphrase.write_text(secrets.token_hex(32))
    return {
        **allowed(inherited),
        "HOME": str(home),
        "PULUMI_HOME": str(pulumi),
        "PULUMI_BACKEND_URL": state.as_uri(),
        "PULUMI_CONFIG_PASSPHRASE_FILE": str(passphrase),
        "PULUMI_SKIP_UPDATE_CHECK": "true",
        SIMULATE: "1",
    }
