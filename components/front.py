"""The front of a cache: nginx before its registry.

Distribution's proxy mode fetches a blob once for each client that asks for it at the same time, and
lets a tag wait for a silent upstream. The front lets clients share one fetch, and remembers tags.
See docs/decisions/0035-nginx-alone.md.
"""

import math
import re
from collections.abc import Mapping
from string import Template
from types import MappingProxyType

from talos_registry_cache.engine.volume import STORAGE_FOLDER

from .placement import CONTAINER_PORT
from .private_files import FOLDER, PrivateFile
from .settings.front import Front
from .settings.values import seconds

# On loopback within the container: port 5001 is that of the registry's metrics.
TAGS_PORT = 5002
# The mount point of the volume that a front shares with its registry. Engines give a new volume
# the permissions of the image's folder, and every user may write to /tmp.
SHARED_FOLDER = "/tmp"  # noqa: S108
SOCKET = f"{SHARED_FOLDER}/registry.sock"
CONFIGURATION_FILE = "nginx.conf"
COMMAND = ("nginx", "-e", "stderr", "-p", SHARED_FOLDER, "-c", f"{FOLDER}/{CONFIGURATION_FILE}")
PROBE_URL = f"http://127.0.0.1:{TAGS_PORT}/"
# containerd gives up a pull after 300 s without a byte, so a client must not wait longer for the
# fetch of another one.
WAITS_S = 240
# How long a blob is served from the front itself, counted from its first byte. After that, the
# registry is asked, which has stored it, or has found that its digest is wrong.
SHARED_S = 30
MANIFEST_TYPES = (
    r"vnd\.oci\.image\.index\.v1",
    r"vnd\.oci\.image\.manifest\.v1",
    r"vnd\.docker\.distribution\.manifest\.list\.v2",
    r"vnd\.docker\.distribution\.manifest\.v2",
)
# How long the registry may be silent. It sends two requests to its upstream before its first byte.
SILENCE_S = 60
READ_ONLY = "this is a read-only cache: push to its upstream instead"


Pins = Mapping[tuple[str, str], str]
"""Digests, by repository and tag."""


class Text(Template):
    """A text with %{placeholders}, since nginx's own variables begin with a dollar sign."""

    delimiter = "%"


HEAD = """\
daemon off;
worker_processes 2;
pid nginx.pid;
events { worker_connections 1024; }
http {
  server_tokens off;
  sendfile on;
  client_body_temp_path body;
  proxy_temp_path proxy;
  fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi;
  scgi_temp_path scgi;"""

LOG_FORMAT = """\
  # As the registry logs, and how long it took and what came of it.
  log_format pull '$remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent '
                  '"$http_referer" "$http_user_agent" $request_time $result';"""

# Tags have a server of their own: until a background update ends, nginx answers no other request
# on the connection that began it. This connection is not a client's.
_CONFIGURATION = Text("""\
%{head}%{server_file}
  tcp_nopush on;
  client_max_body_size 1k;
  proxy_cache_path blobs levels=1:2 keys_zone=blobs:1m max_size=4g inactive=1m use_temp_path=off;
  proxy_cache_path tags levels=1:2 keys_zone=tags:10m max_size=256m inactive=365d use_temp_path=off;
  # In memory only, since its keys are passwords.
  proxy_cache_path /dev/shm/readers keys_zone=readers:1m max_size=1m inactive=10s;
  upstream registry { server unix:%{socket}; keepalive 16; }
  proxy_http_version 1.1;
  proxy_set_header Connection "";
  proxy_set_header Host $http_host;
  proxy_read_timeout %{silence}s;
  proxy_ignore_headers Cache-Control Expires Set-Cookie Vary;
  # Clients that accept all types of manifests get the same answer, whatever the order of the types.
  map $http_accept $accepts { default $http_accept; ~%{all_types} all; }
  map $http_cache_control $revalidates { default ""; ~no-cache yes; }%{pins}
  map "$kind $upstream_cache_status$upstream_http_x_cache" $result {
    default -;
    "stored " hit;
    "~^missing HIT" shared;
    ~^missing miss;
    "~^tag HIT" hit;
    "~^tag (STALE|UPDATING)" stale;
    ~^tag miss;
  }
  # $kind is not set for other requests. A value for the whole server would be set again by the
  # request for /readers, which shares its variables with the client's request.
  uninitialized_variable_warn off;
%{log_format}
  server {
    listen %{port}%{ssl};%{certificate}
    access_log /dev/stdout pull;%{readers}
    # At once, instead of after the content, which nginx would keep on the disk.
    if ($request_method !~ "^(GET|HEAD)$") {
      return 405 '%{refusal}';
    }
    # The registry has no referrers API. An image without an index of its referrers under this tag
    # (OCI distribution-spec 1.1, "Referrers Tag Schema") gets 404, and nodes ask its upstream.
    rewrite "^/v2/(.+)/referrers/sha256:([0-9a-f]{64})$" /v2/$1/manifests/sha256-$2;%{pinning}
    location ~ "^/v2/(?<name>[a-z0-9._/-]+)/blobs/sha256:(?<h2>[0-9a-f]{2})(?<h62>[0-9a-f]{62})$" {
      set $kind stored;
      root %{storage}/docker/registry/v2;
      default_type application/octet-stream;
      etag off;
      add_header Docker-Content-Digest sha256:$h2$h62;
      add_header Docker-Distribution-Api-Version registry/2.0;
      error_page 418 = @missing;
      # A registry fetches a blob again for each repository. The front serves a stored blob to all
      # repositories that have images, so that clients cannot create a repository.
      if (!-d $document_root/repositories/$name/_manifests) { return 418; }
      mirror /link;
      try_files /blobs/sha256/$h2/$h2$h62/data @missing;
    }
    # Links a stored blob to the repository in the request, as the registry does after a fetch.
    location = /link {
      internal;
      root %{storage}/docker/registry/v2;
      if (-f $document_root/repositories/$name/_layers/sha256/$h2$h62/link) { return 204; }
      if (!-f $document_root/blobs/sha256/$h2/$h2$h62/data) { return 204; }
      proxy_method PUT;
      proxy_set_body sha256:$h2$h62;
      proxy_pass http://%{tags}/repositories/$name/_layers/sha256/$h2$h62/link;
    }
    location @missing {
      set $kind missing;
      proxy_pass http://registry;
      proxy_cache blobs;
      proxy_cache_key $uri;
      proxy_cache_bypass $revalidates;
      proxy_cache_valid 200 %{shared}s;
      proxy_cache_lock on;
      proxy_cache_lock_timeout %{waits}s;
      proxy_cache_lock_age 1h;
      # For `cachectl warm`, which has to know whether the registry has stored a blob.
      add_header X-Cache $upstream_cache_status;
    }
    location ~ ^/v2/.+/manifests/ {
      set $kind tag;
      proxy_pass http://%{tags};
      proxy_hide_header X-Cache;
    }
    location / { proxy_pass http://registry; }
  }
  server {
    listen %{tags};
    access_log off;
    keepalive_timeout 0;
    tcp_nopush off;
    # The health check, which says itself why it fails.
    location = / {
      error_log /dev/null;
      proxy_pass http://registry;
    }
    location /repositories/ {
      root %{storage}/docker/registry/v2;
      dav_methods PUT;
      dav_access group:r all:r;
      create_full_put_path on;
    }
    location / {
      proxy_pass http://registry;%{tag_cache}
    }
  }%{more}
}
""")

# A variable, so that nginx reads the file at each handshake instead of once at its start. The file
# has the certificate and its key.
CERTIFICATE = "\n    ssl_certificate $server_file; ssl_certificate_key $server_file;"
# A server on loopback reads it at the start too: nginx does not start with one that it cannot use.
SERVER_FILE = f"""
  map "" $server_file {{ default {FOLDER}/server.pem; }}
  server {{
    listen 127.0.0.1:5003 ssl;
    ssl_certificate {FOLDER}/server.pem; ssl_certificate_key {FOLDER}/server.pem;
    access_log off;
    return 404;
  }}"""

# The registry checks passwords, and the front remembers its answer for ten seconds.
_READERS = """
    auth_request /readers;
    location = /readers {
      internal;
      proxy_pass http://registry/v2/;
      proxy_pass_request_body off;
      proxy_set_header Content-Length "";
      proxy_cache readers;
      proxy_cache_key $http_authorization;
      proxy_cache_valid 200 10s;
    }"""

_TAG_CACHE = Text("""
      proxy_ignore_client_abort on;
      proxy_cache tags;
      proxy_cache_key $uri$accepts;
      proxy_cache_bypass $revalidates;
      proxy_cache_valid 200 %{freshness}s;
      proxy_cache_lock on;
      proxy_cache_lock_timeout %{silence}s;
      proxy_cache_lock_age %{silence}s;
      proxy_cache_background_update on;
      proxy_cache_use_stale updating error timeout invalid_header
                            http_403 http_404 http_429 http_500 http_502 http_503 http_504;
      add_header X-Cache $upstream_cache_status always;""")

# Regular expressions: other keys of a map do not tell v1 from V1.
_PINS = Text("""
  map "$revalidates$uri" $pinned {
    default "";%{digests}
  }""")
_PINNING = """
    if ($pinned) { rewrite "^(/v2/.+/manifests/)[^/]+$" $1$pinned; }"""


def files(
    front: Front,
    server_files: Mapping[str, PrivateFile],
    *,
    readers: bool,
    pins: Pins = MappingProxyType({}),
) -> Mapping[str, PrivateFile]:
    """The files that the front of a cache reads when it starts.

    Args:
        front: the settings.
        server_files: the file with certificate and key, for TLS.
        readers: whether clients need a password.
        pins: the digests of tags that are not looked up.
    """
    text = configuration(
        tls=bool(server_files),
        readers=readers,
        tag_freshness_s=math.ceil(seconds(front.tag_freshness)),
        pins=pins,
    )
    return with_configuration(server_files, text)


def with_configuration(
    server_files: Mapping[str, PrivateFile], text: str
) -> Mapping[str, PrivateFile]:
    """The files of a front with this configuration."""
    return {**server_files, CONFIGURATION_FILE: PrivateFile(text, is_read_once=True)}


def refusal(message: str) -> str:
    """The answer to a push that is refused, as registries write errors."""
    return f'{{"errors": [{{"code": "UNSUPPORTED", "message": "{message}"}}]}}\\n'


def configuration(
    *,
    tls: bool,
    readers: bool,
    tag_freshness_s: int,
    refusal: str = refusal(READ_ONLY),
    more: str = "",
    pins: Pins = MappingProxyType({}),
) -> str:
    """The configuration of nginx, the same for all caches of a stack without pinned tags.

    Args:
        tls: whether it serves HTTPS, with server.pem beside the configuration.
        readers: whether clients need a password, which the registry checks.
        tag_freshness_s: how long a tag is served without asking the registry, in seconds; 0 to ask
            each time.
        refusal: the answer to all methods but GET and HEAD.
        more: more servers.
        pins: the digests of tags that are not looked up, unless a client asks for that.
    """
    tag_cache = _TAG_CACHE.substitute(freshness=tag_freshness_s, silence=SILENCE_S)
    return _CONFIGURATION.substitute(
        head=HEAD,
        refusal=refusal,
        more=more,
        pins=_pins(pins) if pins else "",
        pinning=_PINNING if pins else "",
        log_format=LOG_FORMAT,
        socket=SOCKET,
        silence=SILENCE_S,
        all_types="".join(f"(?=.*/{one}\\+json)" for one in MANIFEST_TYPES),
        waits=WAITS_S,
        shared=SHARED_S,
        port=CONTAINER_PORT,
        tags=f"127.0.0.1:{TAGS_PORT}",
        storage=STORAGE_FOLDER,
        ssl=" ssl" if tls else "",
        server_file=SERVER_FILE if tls else "",
        certificate=CERTIFICATE if tls else "",
        readers=_READERS if readers else "",
        tag_cache=tag_cache if tag_freshness_s else "",
    )


def _pins(pins: Pins) -> str:
    lines = (
        f"\n    ~^/v2/{re.escape(repository)}/manifests/{re.escape(tag)}$ {digest};"
        for (repository, tag), digest in sorted(pins.items())
    )
    return _PINS.substitute(digests="".join(lines))
