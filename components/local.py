"""The local registry: this machine pushes to it on loopback, and nodes have a mirror for it.

It is a registry with a front, as every cache, but without an upstream. Its front has a second port,
which is published on loopback only and passes pushes on.
See docs/decisions/0048-images-of-ones-own.md.
"""

from collections.abc import Mapping, Sequence

from . import front
from .private_files import PrivateFile
from .settings.local import Local

NAME = "local"
"""In names on the engine, so that another port keeps the volume."""
ADDRESS = "127.0.0.1"
PUSH_PORT = 5004
# The registry reads a large layer once more before it answers.
SILENCE_S = 600

_PUSHES = front.Text("""
  # A name of another host is that of a container, or of a web page whose name leads to loopback.
  map "$request_method $host" $refuses {
    default yes;
    "~^(GET|HEAD) " "";
    "~ (localhost|127\\.0\\.0\\.1)$" "";
  }
  server {
    listen %{port};
    access_log /dev/stdout pull;
    if ($refuses) {
      return 405 '%{refusal}';
    }
    client_max_body_size 0;
    proxy_request_buffering off;
    proxy_max_temp_file_size 0;
    proxy_read_timeout %{silence}s;
    location / { proxy_pass http://registry; }
  }""")


def push_url(settings: Local) -> str:
    """The URL at which this machine pushes."""
    return f"http://{ADDRESS}:{settings.port}"


def for_nodes(addresses: Sequence[str]) -> Sequence[str]:
    """Some addresses without the one for pushes, in the same order."""
    return [address for address in addresses if address != ADDRESS]


def files(
    settings: Local, server_files: Mapping[str, PrivateFile], *, readers: bool
) -> Mapping[str, PrivateFile]:
    """The files that its front reads when it starts.

    Args:
        settings: its settings.
        server_files: the file with certificate and key, for TLS.
        readers: whether clients need a password.
    """
    refusal = front.refusal(f"images are pushed to {settings.host} on the workstation only")
    text = front.configuration(
        tls=bool(server_files),
        readers=readers,
        # A tag that was pushed again is another image at once.
        tag_freshness_s=0,
        refusal=refusal,
        more=_PUSHES.substitute(port=PUSH_PORT, refusal=refusal, silence=SILENCE_S),
    )
    return front.with_configuration(server_files, text)
