"""cachectl status: health, storage and hits of each cache."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from http import HTTPStatus
from typing import Annotated, Any

import typer
from docker import DockerClient
from docker.models.containers import Container

from talos_registry_cache.cli import (
    caches,
    console,
    node_metrics,
    options,
    stack,
    upstream,
)
from talos_registry_cache.cli.commands import logs
from talos_registry_cache.cli.errors import CachectlError, ExitCode
from talos_registry_cache.cli.metrics import SIZE_LIMIT, Metrics, read_metrics
from talos_registry_cache.cli.stack import Cache, Stack, Wildcard
from talos_registry_cache.endpoint import ALL_REGISTRIES
from talos_registry_cache.engine import reachability
from talos_registry_cache.engine.cache_storage import InStore
from talos_registry_cache.engine.processes import HEALTHY
from talos_registry_cache.engine.reachability import ReachabilityError
from talos_registry_cache.engine.volume import STORAGE_FOLDER
from talos_registry_cache.registry import attachments, interruptible, pull_log, served_certificate
from talos_registry_cache.registry.client import RateLimit
from talos_registry_cache.registry.errors import (
    CANNOT_BE_CACHED,
    HEAD_REFUSED,
    NO_LENGTH,
    RegistryError,
)
from talos_registry_cache.registry.layout import tags_in
from talos_registry_cache.registry.s3_location import S3Location

METRICS_URL = f"http://127.0.0.1:{node_metrics.PORT}/metrics"
TRIES = 3
LAST_LINES = 1000
NODES = {True: "reach it", False: "cannot reach it", None: "-"}
HEAD = "storage\n"
# The first line is the size in KiB. The port of the metrics is not published.
PROBE = (
    f"printf '{HEAD}'; "
    "busybox du -sk .; busybox find . -path '*/_manifests/tags/*/current/link'; "
    f"echo; wget -q -O - {METRICS_URL} | busybox head -c {SIZE_LIMIT}"
)


@dataclass(frozen=True, slots=True)
class Usage:
    """The storage of a cache, and its metrics.

    Attributes:
        repositories, tags: how many of each are stored.
        size: the space on disk, in bytes.
        metrics: the registry's since its last start; with a front, hits, misses and bytes to
            clients are those in the front's log. None if the registry has none.
        cannot_be_cached: whether the upstream does not answer what a cache asks for blobs.
    """

    repositories: int
    tags: int
    size: int
    metrics: Metrics | None
    cannot_be_cached: bool = False


def status(
    *,
    limits: Annotated[
        bool,
        typer.Option(
            "--limits", help="Ask Docker Hub how many pulls are left. Does not count as a pull."
        ),
    ] = False,
    stack_name: options.StackName = None,
    as_json: options.AsJson = False,
) -> None:
    """Show the health, the upstream, the storage and the hits of each cache.

    Hits and misses come from the log of the cache's front, which is limited in size and starts
    again with the container. A request that shared the fetch of another, and a stale tag, count as
    hits; warming counts as a client. Bytes from the upstream are those of the registry since its
    last start; "saved" is what clients got and the upstream did not have to send. A cache
    without a front (`placement.replicas`) has the registry's own numbers. Upstreams are contacted
    from this machine, with the CAs and the proxy of their caches.

    With a wildcard mirror (`caches.wildcard`), its log shows for which registries nodes found no
    cache. They are listed below the table, and in JSON as `undeclared` of `*`.

    A temporary container on the engine's default network requests each mirror, as nodes do: the
    column "nodes" shows whether they get an answer. Warns 30 days before the certificate of a cache
    expires.

    Exit codes: 0 every cache is healthy, 1 failure, 2 wrong usage, 3 a cache or the wildcard
    mirror is not healthy, nodes cannot reach it, or a certificate has expired. An unreachable
    upstream is not an error: caches exist for that.
    """
    with stack.opened(stack_name) as found:
        shown = list(found.caches.values())
        wildcard = found.wildcard()
        mirrors = _mirrors_for_nodes(shown, wildcard)
        problems, usages, expiries = _measured(found.engine, found.caches, mirrors)
        undeclared = _undeclared(found, wildcard) if wildcard else {}
    remotes = {cache.registry: cache.remote for cache in shown if cache.remote is not None}
    reachable = interruptible.run(upstream.reachable(remotes))
    left = interruptible.run(upstream.limits(remotes)) if limits else {}
    if as_json:
        described = {
            cache.registry: {
                **_described(
                    cache,
                    usages[cache.registry],
                    reachable,
                    left.get(cache.registry),
                    expiries[cache.registry],
                ),
                "mirrorReachable": _is_reached(cache.registry, problems),
            }
            for cache in shown
        }
        if wildcard:
            described[ALL_REGISTRIES] = {
                **_described_wildcard(wildcard, undeclared),
                "mirrorReachable": _is_reached(ALL_REGISTRIES, problems),
            }
        console.as_json(described)
    else:
        _show(shown, usages, problems, reachable, left)
        if wildcard:
            _show_wildcard(wildcard, undeclared)
    now = datetime.now(UTC)
    for warning in (*certificate_warnings(expiries, now), *_ca_notes(shown, now)):
        console.say(warning)
    unreachable = {host: problem for host, problem in (problems or {}).items() if problem}
    if unreachable:
        console.say(reachability.explained(unreachable, mirrors))
    healths = {cache.health for cache in shown} | ({wildcard.health} if wildcard else set())
    is_expired = any(expiry and expiry <= now for expiry in expiries.values())
    if unreachable or is_expired or not healths <= HEALTHY:
        raise typer.Exit(ExitCode.NOT_ALL_THERE)


def parse_usage(printed: str) -> Usage:
    """Parse the output of the probe after its head."""
    listed, _, metrics = printed.partition("\n\n")
    first, _, files = listed.partition("\n")
    return _of(tags_in(files.splitlines()), int(first.split()[0]) << 10, read_metrics(metrics))


def _measured(
    client: DockerClient, shown: Mapping[str, Cache], mirrors: Mapping[str, str]
) -> tuple[Mapping[str, str] | None, Mapping[str, Usage | None], Mapping[str, datetime | None]]:
    """Problems of the mirrors, usage and expiry of the certificate of each cache; all at once."""
    cached = list(shown.values())
    work: list[Callable[[], Any]] = [
        partial(_problems, client, cached, mirrors),
        *(partial(_usage, client, cache) for cache in cached),
        *(partial(_expiry, cache) for cache in cached),
    ]
    problems, *measured = caches.at_once(client, lambda one: one(), work)
    usages, expiries = measured[: len(cached)], measured[len(cached) :]
    return problems, dict(zip(shown, usages, strict=True)), dict(zip(shown, expiries, strict=True))


def certificate_warnings(expiries: Mapping[str, datetime | None], now: datetime) -> Iterator[str]:
    """Warnings about certificates that expire within 30 days, one for each certificate.

    Args:
        expiries: when the certificate of each cache expires, by registry host; None without TLS.
        now: the current time.
    """
    for expiry in sorted({one for one in expiries.values() if one}):
        if expiry - now < served_certificate.RENEWED_BEFORE:
            named = ", ".join(name for name, one in expiries.items() if one == expiry)
            left = f"expires in {(expiry - now).days} days" if expiry > now else "has expired"
            yield (
                f"{named}: the certificate {left} ({expiry:%Y-%m-%d}); `pulumi up` renews it, or "
                "set caches.tls.certificate and tlsKey to a new one if it is your own"
            )


def ca_note(ca: str, now: datetime) -> str | None:
    """A note about the next CA of a stack, while some clients may not trust it; else None.

    Args:
        ca: the CAs of the caches, PEM.
        now: the current time.
    """
    succession = served_certificate.next_ca(ca)
    if succession is None or succession.signs_from <= now:
        return None
    return (
        f"the stack has a new CA, which the caches use from {succession.signs_from:%Y-%m-%d} on; "
        f"clients configured before {succession.trusted_since:%Y-%m-%d} need it "
        "(`cachectl mirrors`)"
    )


def _ca_notes(shown: list[Cache], now: datetime) -> list[str]:
    notes = (ca_note(cache.ca, now) for cache in shown if cache.ca)
    return sorted({note for note in notes if note})


def _expiry(cache: Cache) -> datetime | None:
    return served_certificate.expires(cache.endpoint) if cache.endpoint else None


def _mirrors_for_nodes(shown: Sequence[Cache], wildcard: Wildcard | None) -> Mapping[str, str]:
    """The URLs of the mirrors that containers of this engine are meant to reach."""
    published = {address for cache in shown for address in cache.published}
    mirrors = {cache.registry: cache.mirror for cache in shown if not cache.is_service}
    if wildcard:
        mirrors[ALL_REGISTRIES] = wildcard.mirror
    return {
        registry: url
        for registry, url in mirrors.items()
        if url and reachability.is_for_nodes(url, published)
    }


def _problems(
    client: DockerClient, shown: Sequence[Cache], mirrors: Mapping[str, str]
) -> Mapping[str, str] | None:
    """Why nodes cannot reach each of the mirrors, empty if they do; None if that is unknown."""
    image = next((cache.image for cache in shown if cache.image), "")
    if not (mirrors and image):
        return None
    try:
        problems = reachability.problems(client, image, mirrors)
    except ReachabilityError as error:
        console.say(str(error))
        return None
    return {registry: problems.get(registry, "") for registry in mirrors}


def _is_reached(registry: str, problems: Mapping[str, str] | None) -> bool | None:
    """Whether nodes reach a mirror; None if that is unknown."""
    problem = (problems or {}).get(registry)
    return None if problem is None else not problem


def _usage(client: DockerClient, cache: Cache) -> Usage | None:
    if not cache.is_running:
        return None
    try:
        if isinstance(cache.storage, S3Location):
            storage = InStore(client, cache.storage, cache.image)
            usage: Usage | None = _of(storage.tags(), storage.size(), _metrics(client, cache))
        else:
            usage = _probed(client, cache)
    except (CachectlError, RegistryError) as error:
        # Its health and the other caches can be shown all the same.
        console.say(f"{cache.registry}: {error}")
        return None
    return _with_front(client, cache, usage) if usage and cache.has_front else usage


def _with_front(client: DockerClient, cache: Cache, usage: Usage) -> Usage:
    """Add what the log of a front shows, which asks its registry only for what it lacks."""
    # Line by line: the stack's settings bound the log to some 30 MB.
    seen = pull_log.totals(pull_log.parse_all(logs.lines(client, cache)))
    counted = {"hits": seen.hits, "misses": seen.misses, "to_clients": seen.to_clients}
    return replace(
        usage,
        metrics=usage.metrics and replace(usage.metrics, **counted),
        cannot_be_cached=_cannot_be_cached(client, cache, seen.blob_errors),
    )


def _cannot_be_cached(client: DockerClient, cache: Cache, blob_errors: frozenset[int]) -> bool:
    if blob_errors & HEAD_REFUSED:
        return True
    if HTTPStatus.INTERNAL_SERVER_ERROR not in blob_errors or cache.is_service:
        return False
    logged = pull_log.lines(logs.output(client, cache.process, tail=LAST_LINES))
    return any(NO_LENGTH in line for line in logged)


def _undeclared(found: Stack, wildcard: Wildcard) -> Mapping[str, int]:
    """How often nodes asked for each registry that has no cache; the most frequent first."""
    logged = pull_log.lines(logs.output(found.engine, wildcard.name))
    return dict(
        Counter(
            pull.namespace
            for pull in pull_log.parse_all(logged)
            # If the cache of a registry is gone, the answer is 502.
            if pull.status == HTTPStatus.NOT_FOUND
            and pull.namespace
            and pull.namespace not in found.caches
        ).most_common()
    )


def _of(tags: list[tuple[str, str]], size: int, metrics: Metrics | None) -> Usage:
    images = [(repository, tag) for repository, tag in tags if not attachments.subject(tag)]
    return Usage(len({repository for repository, _ in images}), len(images), size, metrics)


def _metrics(client: DockerClient, cache: Cache) -> Metrics | None:
    if cache.is_service:
        return node_metrics.of_service(client, cache)
    container = client.containers.get(cache.process)
    _, raw = container.exec_run(["wget", "-q", "-O", "-", METRICS_URL], stderr=False)
    return read_metrics(raw.decode()) if isinstance(raw, bytes) else None


def _probed(client: DockerClient, cache: Cache) -> Usage | None:
    """Ask the container of a cache; for a service, the one on this node."""
    container = _container(client, cache)
    if container is None:
        return None
    # A busy engine may lose the beginning of an output (seen with 20.10).
    for _ in range(TRIES):
        code, raw = container.exec_run(["sh", "-c", PROBE], workdir=STORAGE_FOLDER, stderr=False)
        printed = raw.decode() if isinstance(raw, bytes) else ""
        if code == 0 and printed.startswith(HEAD):
            return parse_usage(printed.removeprefix(HEAD))
    return None


def _container(client: DockerClient, cache: Cache) -> Container | None:
    if not cache.is_service:
        return client.containers.get(cache.process)
    filters: dict[str, Any] = {"label": f"{stack.OF_SERVICE}={cache.process}"}
    return next(iter(client.containers.list(filters=filters, ignore_removed=True)), None)


def _show(
    shown: list[Cache],
    usages: Mapping[str, Usage | None],
    problems: Mapping[str, str] | None,
    reachable: Mapping[str, bool],
    left: Mapping[str, RateLimit | str],
) -> None:
    console.table(
        (
            "registry", "health", "endpoint", "nodes", "upstream", ">images", ">on disk",
            ">hits", ">misses", ">from upstream", ">saved",
        ),
        (
            (
                cache.registry,
                ": ".join(filter(None, (cache.health, cache.why_unhealthy))),
                cache.endpoint or "-",
                NODES[_is_reached(cache.registry, problems)],
                _reached(cache, reachable),
                *_numbers(usages[cache.registry]),
            )
            for cache in shown
        ),
    )  # fmt: skip
    for cache in shown:
        if cache.trouble:
            console.say(f"{cache.registry}: {cache.trouble}")
        if (usage := usages[cache.registry]) and usage.cannot_be_cached:
            console.say(f"{cache.registry}: its blobs cannot be cached: {CANNOT_BE_CACHED}")
    for registry, limit in left.items():
        console.say(f"{registry}: {limit if isinstance(limit, str) else _limit(limit)}")


def _show_wildcard(wildcard: Wildcard, undeclared: Mapping[str, int]) -> None:
    if wildcard.health not in HEALTHY:
        console.say(f"the wildcard mirror is {wildcard.health}; see: docker logs {wildcard.name}")
    for registry, requests in undeclared.items():
        console.say(f"{registry}: {requests} requests, but no cache; add it to caches.upstreams")


def _reached(cache: Cache, reachable: Mapping[str, bool]) -> str:
    if cache.remote is None:
        return "none"
    return "reachable" if reachable[cache.registry] else "unreachable"


def _numbers(usage: Usage | None) -> tuple[str, ...]:
    if usage is None:
        return ("-",) * 6
    stored = str(usage.tags), console.size(usage.size)
    if (metrics := usage.metrics) is None:
        return (*stored, "-", "-", "-", "-")
    moved = console.size(metrics.from_upstream), console.size(metrics.saved)
    return (*stored, str(metrics.hits), str(metrics.misses), *moved)


def _limit(limit: RateLimit) -> str:
    of = f" of {limit.limit}" if limit.limit else ""
    window = f" in {limit.window_s / 3600:.0f} h" if limit.window_s else ""
    return f"{limit.remaining}{of} pulls left{window}"


def _described_wildcard(wildcard: Wildcard, undeclared: Mapping[str, int]) -> dict[str, object]:
    return {
        "health": wildcard.health,
        "name": wildcard.name,
        "mirror": wildcard.mirror,
        "undeclared": undeclared,
    }


def _described(
    cache: Cache,
    usage: Usage | None,
    reachable: Mapping[str, bool],
    limit: RateLimit | str | None,
    expiry: datetime | None,
) -> dict[str, object]:
    return {
        "health": cache.health,
        "restarts": cache.restarts,
        "outOfMemory": cache.was_out_of_memory,
        "whyUnhealthy": cache.why_unhealthy or None,
        "name": cache.name,
        "endpoint": cache.endpoint,
        "mirror": cache.mirror,
        "certificateExpires": expiry.isoformat() if expiry else None,
        "storage": str(cache.storage),
        "upstream": cache.remote.url if cache.remote else None,
        "reachable": reachable.get(cache.registry),
        "stored": asdict(usage) if usage else None,
        "limit": asdict(limit) if isinstance(limit, RateLimit) else limit,
    }
