"""The ways to cache that are compared: the guide's, this project's, and nginx as a proxy."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from docker.models.containers import Container

from benchmarks.support.image_set import REFERENCES, REGISTRIES
from benchmarks.support.pulumi_stack import Config, Stack
from benchmarks.support.site import Site, metrics
from benchmarks.support.upstream import wait_for

STORAGE = "/var/lib/registry"
PULLED = "registry_proxy_pulled_bytes_total"
# What a program of this machine needs to run in a container of another image.
OF_THIS_MACHINE = ("/usr", "/lib", "/lib64", "/etc/passwd", "/etc/group")


@dataclass(frozen=True, slots=True)
class Caches:
    """Caches that run.

    Attributes:
        endpoints: where nodes ask each registry's cache, by the registry's host.
        containers: what they run in.
    """

    endpoints: Mapping[str, str]
    containers: Sequence[Container]

    def pulled(self) -> int | None:
        """The bytes that they have pulled by their own count, or None where they do not count."""
        counts = [metrics(container, PULLED) for container in self.containers]
        known = [count for count in counts if count is not None]
        return sum(known) if len(known) == len(counts) else None


@contextmanager
def guide(site: Site, upstream: str, program: Path | None = None) -> Iterator[Caches]:
    """The guide's: one `docker run` for each registry, with the upstream's URL and nothing else.

    Args:
        site: where.
        upstream: the upstream's URL.
        program: folder of Debian's docker-registry, which is distribution 2.8; 3.1 where left out.
    """
    environment = {"REGISTRY_PROXY_REMOTEURL": upstream}
    options = {} if program is None else _program(program, "usr/bin/docker-registry")
    with tempfile.TemporaryDirectory() as folder, site.scope() as scope:
        if program is not None:
            (Path(folder) / "config.yml").write_text(_CONFIG_2_8)
            options["command"] = ["serve", "/config/config.yml"]
            options["volumes"] |= {folder: {"bind": "/config", "mode": "ro"}}
        ports = dict(zip(REGISTRIES, site.free_ports(len(REGISTRIES)), strict=True))
        containers = [
            scope.run(
                host,
                {5000: port},
                environment=environment,
                restart_policy={"Name": "always"},
                **options,
            )
            for host, port in ports.items()
        ]
        yield _answering(site, ports, containers)


@contextmanager
def nginx(site: Site, upstream: str, program: Path) -> Iterator[Caches]:
    """One nginx that caches and sends one request for each blob upstream.

    Args:
        site: where.
        upstream: the upstream's URL.
        program: folder of Debian's nginx.
    """
    ports = dict(zip(REGISTRIES, site.free_ports(len(REGISTRIES)), strict=True))
    inside = {5000 + number: port for number, port in enumerate(ports.values())}
    with tempfile.TemporaryDirectory() as folder, site.scope() as scope:
        servers = "".join(_NGINX_SERVER % (port, upstream) for port in inside)
        (Path(folder) / "nginx.conf").write_text(_NGINX % servers)
        options = _program(program, "usr/sbin/nginx")
        options["command"] = ["-e", "stderr", "-p", STORAGE, "-c", "/config/nginx.conf"]
        options["volumes"] |= {folder: {"bind": "/config", "mode": "ro"}}
        container = scope.run("nginx", inside, **options)
        yield _answering(site, ports, [container])


@dataclass(frozen=True, slots=True)
class Project:
    """This project's caches: a stack of the program itself.

    Attributes:
        stack: the stack.
        settings: its settings without images.
        site: where it is.
    """

    stack: Stack
    settings: Config
    site: Site

    def up(self) -> None:
        """Make the caches, and leave them empty."""
        self.stack.configure(self.settings)
        self.stack.up()

    def up_with_images(self) -> None:
        """Make the caches, unless they are there, and bring the images into them."""
        self.stack.configure({**self.settings, "images": {"references": list(REFERENCES)}})
        self.stack.up()

    def caches(self) -> Caches:
        """The caches, as nodes reach them."""
        outputs = self.stack.outputs()
        names = [cache["name"] for cache in outputs["caches"].values()]
        containers = [self.site.engine.containers.get(name) for name in names]
        return Caches(outputs["mirrors"], containers)


@contextmanager
def project(site: Site, upstream: str) -> Iterator[Project]:
    """A stack of this project that is not up yet.

    Args:
        site: where.
        upstream: the upstream's URL.
    """
    ports = dict(zip(REGISTRIES, site.free_ports(len(REGISTRIES)), strict=True))
    upstreams = {host: {"port": port, "remoteUrl": upstream} for host, port in ports.items()}
    settings = {"caches": {"upstreams": upstreams, "storage": {"onDestroy": "delete"}}}
    with tempfile.TemporaryDirectory() as folder, site.stack_name() as name:
        stack = Stack(name, Path(folder) / "stack")
        stack.prepare(settings)
        yield Project(stack, settings, site)


def _answering(site: Site, ports: Mapping[str, int], containers: list[Container]) -> Caches:
    endpoints = {host: f"http://{site.address}:{port}" for host, port in ports.items()}
    for number, url in enumerate(endpoints.values()):
        wait_for(url, containers[min(number, len(containers) - 1)])
    return Caches(endpoints, containers)


def _program(folder: Path, path: str) -> dict[str, Any]:
    """Options that run a program of a Debian package with the libraries of this machine.

    All candidates are reached in the same way then: through a port that the engine has published.
    """
    mounts = {name: {"bind": name, "mode": "ro"} for name in OF_THIS_MACHINE if Path(name).exists()}
    return {
        "entrypoint": [f"/program/{path}"],
        "user": "0",
        "volumes": {**mounts, str(folder): {"bind": "/program", "mode": "ro"}},
    }


_CONFIG_2_8 = f"""\
version: 0.1
log: {{fields: {{service: registry}}}}
storage:
  cache: {{blobdescriptor: inmemory}}
  filesystem: {{rootdirectory: {STORAGE}}}
http: {{addr: ":5000"}}
health:
  storagedriver: {{enabled: true, interval: 10s, threshold: 3}}
"""

_NGINX = f"""\
daemon off;
user root;
pid nginx.pid;
worker_processes auto;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    client_body_temp_path {STORAGE}/body;
    proxy_temp_path {STORAGE}/proxy;
    fastcgi_temp_path {STORAGE}/fastcgi;
    scgi_temp_path {STORAGE}/scgi;
    uwsgi_temp_path {STORAGE}/uwsgi;
    proxy_cache_path {STORAGE}/cache levels=1:2 keys_zone=all:10m max_size=20g use_temp_path=off;
    %s
}}
"""
# A lock that times out lets everybody through, and a large layer takes its time.
_NGINX_SERVER = """
    server {
        listen %d;
        location / {
            proxy_pass %s;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_cache all;
            proxy_cache_key $uri;
            proxy_cache_valid 200 1d;
            proxy_cache_lock on;
            proxy_cache_lock_age 1h;
            proxy_cache_lock_timeout 1h;
        }
    }
"""
