"""The wildcard mirror: nginx before the caches, one URL for all registries.

Container runtimes send the host of the registry to a mirror (`?ns=quay.io`). The wildcard mirror
passes the request on to the cache of this registry, and stores nothing. For other registries it
answers 404, and the runtime asks the registry itself.
"""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import pulumi

from . import front
from .placement import CONTAINER_PORT
from .private_files import FOLDER, PrivateFile

NAME = "wildcard"
SERVER_NAME = "caches.internal"
"""A name in the caches' certificate. nginx compares no IP addresses with a certificate."""

WORK_FOLDER = "/dev/shm"  # noqa: S108 - in memory, and of this container alone
AUTHORITY_FILE = "ca.crt"
COMMAND = ("nginx", "-e", "stderr", "-p", WORK_FOLDER, "-c", f"{FOLDER}/{front.CONFIGURATION_FILE}")
PROBE_PORT = 5002
PROBE_URL = f"http://127.0.0.1:{PROBE_PORT}/"
# A front may wait for another client's fetch, and then for the registry.
SILENCE_S = front.WAITS_S + front.SILENCE_S

_CONFIGURATION = front.Text("""\
%{head}
  # In memory only: a slow client slows down its cache.
  proxy_max_temp_file_size 0;
  client_max_body_size 1k;
  # Docker's own, for a second, since a cache that is replaced gets another address.
  resolver 127.0.0.11 valid=1s ipv6=off;
  # It does not answer for a cache that is missing.
  resolver_timeout 3s;
  proxy_http_version 1.1;
  proxy_set_header Connection "";
  proxy_set_header Host $http_host;
  proxy_connect_timeout 5s;
  proxy_read_timeout %{silence}s;%{verification}
  map_hash_bucket_size 512;%{server_file}
  map $arg_ns $cache {
    default "";%{caches}
  }
  map $arg_ns $error {
    default "this mirror has no cache for the registry";
    "" "this is a mirror for container runtimes, which name the registry, such as ?ns=docker.io";
  }
  # The log of the cache has it.
  map $arg_ns $result { default -; }
%{log_format}
  server {
    listen %{port}%{ssl};%{certificate}
    access_log /dev/stdout pull;
    default_type application/json;
    if ($request_method !~ "^(GET|HEAD)$") { return 405; }
    location = /v2/ {%{base}
    }
    location / {
      if ($cache = "") {
        return 404 '{"errors": [{"code": "NAME_UNKNOWN", "message": "$error"}]}\\n';
      }
      proxy_pass %{scheme}://$cache:%{port};
    }
  }
  server {
    listen 127.0.0.1:%{probe_port};
    access_log off;
    return 200;
  }
}
""")

_VERIFICATION = f"""
  proxy_ssl_verify on;
  proxy_ssl_name {SERVER_NAME};
  proxy_ssl_trusted_certificate {FOLDER}/{AUTHORITY_FILE};"""

_OPEN = """
      add_header Docker-Distribution-Api-Version registry/2.0;
      return 200 "{}";"""

# Any cache checks passwords. A variable, so that its name is looked up for each request.
_READERS = """
      set $any {cache};
      proxy_pass {scheme}://$any:{port};"""


def files(
    caches: Mapping[str, str],
    server_files: Mapping[str, PrivateFile],
    *,
    authority: pulumi.Input[Any] | None,
    readers: bool,
) -> Mapping[str, PrivateFile]:
    """The files that a wildcard mirror reads when it starts.

    Args:
        caches: the name of each cache's container, by registry host.
        server_files: the file with certificate and key, for TLS.
        authority: the CA of the caches (PEM), if their certificate has SERVER_NAME.
        readers: whether clients need a password.
    """
    text = configuration(
        caches, tls=bool(server_files), verifies=authority is not None, readers=readers
    )
    found = dict(front.with_configuration(server_files, text))
    if authority is not None:
        found[AUTHORITY_FILE] = PrivateFile(authority, is_read_once=True)
    return found


def configuration(caches: Mapping[str, str], *, tls: bool, verifies: bool, readers: bool) -> str:
    """The configuration of nginx.

    Args:
        caches: the name of each cache's container, by registry host.
        tls: whether it and the caches serve HTTPS, with server.pem beside the configuration.
        verifies: whether it checks the caches' certificate, with ca.crt beside the configuration.
        readers: whether clients need a password, which the caches check.
    """
    scheme = "https" if tls else "http"
    base = _READERS.format(cache=min(caches.values()), scheme=scheme, port=CONTAINER_PORT)
    return _CONFIGURATION.substitute(
        head=front.HEAD,
        log_format=front.LOG_FORMAT,
        silence=SILENCE_S,
        verification=_VERIFICATION if verifies else "",
        caches="".join(
            f"\n    {name} {cache};"
            for host, cache in sorted(caches.items())
            # nginx does not decode arguments, and containerd encodes colons.
            for name in sorted({host, quote(host, safe="")})
        ),
        port=CONTAINER_PORT,
        probe_port=PROBE_PORT,
        scheme=scheme,
        ssl=" ssl" if tls else "",
        server_file=front.SERVER_FILE if tls else "",
        certificate=front.CERTIFICATE if tls else "",
        base=base if readers else _OPEN,
    )
