"""cachectl status: what each cache is doing, and what it has been good for."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import typer
from docker import DockerClient
from docker.models.containers import Container

from talos_registry_cache.cli import caches, console, node_metrics, options, stack, upstream
from talos_registry_cache.cli.errors import CachectlError, ExitCode
from talos_registry_cache.cli.metrics import SIZE_LIMIT, Metrics, read_metrics
from talos_registry_cache.cli.stack import Cache
from talos_registry_cache.engine.cache_storage import InStore
from talos_registry_cache.registry import interruptible
from talos_registry_cache.registry.client import RateLimit
from talos_registry_cache.registry.errors import RegistryError
from talos_registry_cache.registry.layout import tags_in
from talos_registry_cache.registry.s3_location import S3Location

FOLDER = "/var/lib/registry"
METRICS_URL = f"http://127.0.0.1:{node_metrics.PORT}/metrics"
TRIES = 3
HEAD = "storage\n"
# Kibibytes, in the first line. The metrics are on a port that is published nowhere.
PROBE = (
    f"printf '{HEAD}'; "
    "busybox du -sk .; busybox find . -path '*/_manifests/tags/*/current/link'; "
    f"echo; wget -q -O - {METRICS_URL} | busybox head -c {SIZE_LIMIT}"
)


@dataclass(frozen=True, slots=True)
class Inside:
    """What a cache says of itself.

    Attributes:
        repositories, tags: how many images it has.
        size: what they take on disk, in bytes.
        metrics: what it has done since it was started; None where it does not count.
    """

    repositories: int
    tags: int
    size: int
    metrics: Metrics | None


def status(
    *,
    limits: Annotated[
        bool,
        typer.Option("--limits", help="Ask Docker Hub how many pulls are left; that is no pull."),
    ] = False,
    stack_name: options.StackName = None,
    as_json: options.AsJson = False,
) -> None:
    """Show each cache: its health, its upstream, what it has stored and what that has saved.

    Hits, misses and bytes are the registry's own numbers since it was started last; saved is what
    clients got and the upstream did not have to send. The registry takes a request for a part of
    a blob for one for the whole, so that warming counts as a client. The upstream is asked from
    this machine.

    Exit codes: 0 all caches are healthy, 1 it could not be found out, 2 wrong usage, 3 a cache is
    not healthy. An upstream that is away is no error: that is what caches are for.
    """
    with stack.engine() as client:
        found = stack.find(client, stack_name)
        held = list(found.caches.values())
        insides = dict(
            zip(
                found.caches,
                caches.at_once(client, lambda one: _inside(client, one), held),
                strict=True,
            )
        )
    remotes = {cache.registry: cache.remote_url for cache in held if cache.remote_url is not None}
    reachable = interruptible.run(upstream.reachable(remotes))
    left = interruptible.run(upstream.limits(remotes)) if limits else {}
    if as_json:
        console.as_json(
            {
                cache.registry: _described(
                    cache, insides[cache.registry], reachable, left.get(cache.registry)
                )
                for cache in held
            }
        )
    else:
        _show(held, insides, reachable, left)
    if any(cache.health not in {"healthy", "running"} for cache in held):
        raise typer.Exit(ExitCode.NOT_ALL_THERE)


def inside(printed: str) -> Inside:
    """Read what the probe has printed behind its head."""
    listed, _, metrics = printed.partition("\n\n")
    first, _, files = listed.partition("\n")
    return _of(tags_in(files.splitlines()), int(first.split()[0]) << 10, read_metrics(metrics))


def _inside(client: DockerClient, cache: Cache) -> Inside | None:
    if not cache.is_running:
        return None
    try:
        if isinstance(cache.storage, S3Location):
            held = InStore(client, cache.storage, cache.image)
            return _of(held.tags(), held.size(), _metrics(client, cache))
        return _probed(client, cache)
    except (CachectlError, RegistryError) as error:
        # The other caches, and whether this one is healthy, can be told all the same.
        console.say(f"{cache.registry}: {error}")
        return None


def _of(tags: list[tuple[str, str]], size: int, metrics: Metrics | None) -> Inside:
    repositories = {repository for repository, _ in tags}
    return Inside(len(repositories), len(tags), size, metrics)


def _metrics(client: DockerClient, cache: Cache) -> Metrics | None:
    if cache.is_service:
        return node_metrics.of_service(client, cache)
    container = client.containers.get(cache.name)
    _, raw = container.exec_run(["wget", "-q", "-O", "-", METRICS_URL], stderr=False)
    return read_metrics(raw.decode()) if isinstance(raw, bytes) else None


def _probed(client: DockerClient, cache: Cache) -> Inside | None:
    """What a cache says itself; of a service, that on the node which is asked."""
    container = _container(client, cache)
    if container is None:
        return None
    # An engine that is busy may pass on the end of an output alone (seen with 20.10).
    for _ in range(TRIES):
        code, raw = container.exec_run(["sh", "-c", PROBE], workdir=FOLDER, stderr=False)
        printed = raw.decode() if isinstance(raw, bytes) else ""
        if code == 0 and printed.startswith(HEAD):
            return inside(printed.removeprefix(HEAD))
    return None


def _container(client: DockerClient, cache: Cache) -> Container | None:
    if not cache.is_service:
        return client.containers.get(cache.name)
    filters: dict[str, Any] = {"label": f"{stack.OF_SERVICE}={cache.name}"}
    return next(iter(client.containers.list(filters=filters, ignore_removed=True)), None)


def _show(
    held: list[Cache],
    insides: Mapping[str, Inside | None],
    reachable: Mapping[str, bool],
    left: Mapping[str, RateLimit | str],
) -> None:
    console.table(
        (
            "registry", "health", "endpoint", "upstream", ">images", ">on disk",
            ">hits", ">misses", ">from upstream", ">saved",
        ),
        (
            (
                cache.registry,
                ": ".join(filter(None, (cache.health, cache.why_unhealthy))),
                cache.endpoint or "-",
                _reached(cache, reachable),
                *_numbers(insides[cache.registry]),
            )
            for cache in held
        ),
    )  # fmt: skip
    for cache in held:
        if cache.trouble:
            console.say(f"{cache.registry}: {cache.trouble}")
    for registry, limit in left.items():
        console.say(f"{registry}: {limit if isinstance(limit, str) else _limit(limit)}")


def _reached(cache: Cache, reachable: Mapping[str, bool]) -> str:
    if cache.remote_url is None:
        return "serves only"
    return "reachable" if reachable[cache.registry] else "away"


def _numbers(inside: Inside | None) -> tuple[str, ...]:
    if inside is None:
        return ("-",) * 6
    stored = str(inside.tags), console.size(inside.size)
    if (metrics := inside.metrics) is None:
        return (*stored, "-", "-", "-", "-")
    moved = console.size(metrics.from_upstream), console.size(metrics.saved)
    return (*stored, str(metrics.hits), str(metrics.misses), *moved)


def _limit(limit: RateLimit) -> str:
    of = f" of {limit.limit}" if limit.limit else ""
    window = f" in {limit.window_s / 3600:.0f} h" if limit.window_s else ""
    return f"{limit.remaining}{of} pulls left{window}"


def _described(
    cache: Cache,
    inside: Inside | None,
    reachable: Mapping[str, bool],
    limit: RateLimit | str | None,
) -> dict[str, object]:
    return {
        "health": cache.health,
        "restarts": cache.restarts,
        "outOfMemory": cache.was_out_of_memory,
        "whyUnhealthy": cache.why_unhealthy or None,
        "name": cache.name,
        "endpoint": cache.endpoint,
        "mirror": cache.mirror,
        "storage": str(cache.storage),
        "upstream": cache.remote_url,
        "reachable": reachable.get(cache.registry),
        "stored": asdict(inside) if inside else None,
        "limit": asdict(limit) if isinstance(limit, RateLimit) else limit,
    }
