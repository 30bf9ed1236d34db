"""Runs a Pulumi program without Pulumi's engine and returns the resources it declares."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pulumi
from google.protobuf import json_format, struct_pb2  # type: ignore[import-untyped]
from pulumi.resource_hooks import ResourceHook, ResourceHookFunction
from pulumi.runtime import mocks, rpc
from pulumi.runtime.proto import resource_pb2
from pulumi.runtime.settings import SETTINGS, get_root_resource
from pulumi.runtime.stack import Stack, run_pulumi_func

PROJECT = "talos-registry-cache"
ORGANIZATION = "organization"

STACK = "pulumi:pulumi:Stack"
CONTAINER = "docker:index/container:Container"
IMAGE = "docker:index/remoteImage:RemoteImage"
NETWORK = "docker:index/network:Network"
SECRET = "docker:index/secret:Secret"  # noqa: S105 - a type
SERVICE = "docker:index/service:Service"
VOLUME = "docker:index/volume:Volume"
REGISTRY_CACHE = "talos-registry-cache:caches:RegistryCache"
CACHING_PROXY = "talos-registry-cache:caches:CachingProxy"
CREDENTIAL_HELPER = "talos-registry-cache:caches:CredentialHelper"
FILES_IN_SWARM = "talos-registry-cache:caches:FilesInSwarm"
OWN_AUTHORITY = "pulumi-python:dynamic/caches:OwnAuthority"
OWN_CERTIFICATE = "pulumi-python:dynamic/caches:OwnCertificate"
PASSWORD_FILE = "pulumi-python:dynamic/caches:PasswordFile"  # noqa: S105 - a type
IMAGE_SET = "talos-registry-cache:images:ImageSet"
CACHED_IMAGES = "pulumi-python:dynamic/images:CachedImages"
RETENTION = "pulumi-python:dynamic/caches:ImageRetention"
TALOS_CLUSTER = "talos-registry-cache:clusters:TalosCluster"
LOCAL_CLUSTER = "pulumi-python:dynamic/clusters:LocalCluster"
TAG = "docker:index/tag:Tag"

UNKNOWN = rpc.UNKNOWN


@dataclass(frozen=True, slots=True)
class Secret:
    """A secret value."""

    value: Any


@dataclass(frozen=True, slots=True)
class Declared:
    """One resource as the program registered it."""

    type: str
    name: str
    parent: str
    inputs: Mapping[str, Any]
    depends_on: frozenset[str]
    imported: str
    retain_on_delete: bool
    delete_before_replace: bool
    replace_on_changes: tuple[str, ...]
    ignore_changes: tuple[str, ...]
    secret_outputs: tuple[str, ...]
    before_create: tuple[ResourceHookFunction, ...]
    after_create: tuple[ResourceHookFunction, ...]
    before_update: tuple[ResourceHookFunction, ...]


@dataclass(frozen=True, slots=True)
class Graph:
    """All resources of a program, and the outputs of its stack."""

    resources: tuple[Declared, ...]
    outputs: Mapping[str, Any]

    def all(self, kind: str) -> list[Declared]:
        return [resource for resource in self.resources if resource.type == kind]

    def one(self, kind: str, name: str) -> Declared:
        (found,) = [resource for resource in self.all(kind) if resource.name == name]
        return found

    def names(self, kind: str) -> list[str]:
        return sorted(resource.name for resource in self.all(kind))

    def inputs(self) -> Mapping[tuple[str, str], Mapping[str, Any]]:
        return {(one.type, one.name): one.inputs for one in self.resources}


def run(
    program: Callable[[], object],
    *,
    stack: str = "dev",
    preview: bool = False,
    config: Mapping[str, str] | None = None,
    secret_keys: tuple[str, ...] = (),
    other_stacks: Mapping[str, Mapping[str, Any]] | None = None,
) -> Graph:
    """Run a program to its end, as an update or as a preview.

    Unknown outputs are `pulumi.output.Unknown`. `other_stacks` has the outputs of stacks that the
    program can refer to, by full name. Pulumi's settings are context variables, so that
    `asyncio.run` leaves those of the caller unchanged.
    """

    async def main() -> Graph:
        monitor, hooks = _Monitor(other_stacks or {}), _Hooks()
        pulumi.runtime.set_all_config(dict(config or {}), list(secret_keys))
        SETTINGS.outputs = set()
        pulumi.runtime.set_mocks(
            _NoProvider(),
            project=PROJECT,
            stack=stack,
            preview=preview,
            monitor=monitor,
            organization=ORGANIZATION,
        )
        SETTINGS.callbacks = hooks
        await run_pulumi_func(lambda: _returning_none(program))
        root = get_root_resource()
        assert isinstance(root, Stack)
        outputs = {name: await _shown(value) for name, value in root.outputs.items()}
        return Graph(tuple(monitor.declared(hooks.by_name)), outputs)

    return asyncio.run(main())


async def _shown(value: Any) -> Any:
    """An output of a stack, marked if it is a secret."""
    output = pulumi.Output.from_input(value)
    known = await output.future(with_unknowns=True)
    return Secret(known) if await output.is_secret() else known


def _returning_none(program: Callable[[], object]) -> None:
    program()


def image_id(reference: str) -> str:
    """The ID of a pulled image, and the digest of a cached one."""
    return f"sha256:of-{reference}"


def cluster_made(name: str) -> dict[str, Any]:
    """The outputs of a created cluster."""
    return {
        "nodes": [{"name": f"{name}-worker-1", "role": "worker", "address": "10.5.0.3"}],
        "kubernetesEndpoint": f"https://{name}.test:6443",
        "command": f"talosctl cluster create --name {name}",
    }


def service_id(name: str) -> str:
    """The ID of a created service."""
    return f"{name}-id"


AUTHORITY_MADE = {
    "ca": "the authority's certificate",
    "authorities": [{"certificate": "the authority's certificate", "key": "the authority's key"}],
}
CERTIFICATE_MADE = {"certificate": "the server's certificate", "key": "the server's key"}

# The outputs of created resources beside their inputs, by type.
_MADE: Mapping[str, Callable[[str, Any], Mapping[str, Any]]] = {
    IMAGE: lambda _, inputs: {"imageId": image_id(inputs["name"])},
    CACHED_IMAGES: lambda _, inputs: {
        "digests": {reference: image_id(reference) for reference in inputs["images"]}
    },
    LOCAL_CLUSTER: lambda name, _: cluster_made(name),
    # Pulumi adds random characters to names that it chooses.
    SECRET: lambda name, _: {"name": f"{name}-1234567"},
    OWN_AUTHORITY: lambda *_: AUTHORITY_MADE,
    OWN_CERTIFICATE: lambda *_: CERTIFICATE_MADE,
    PASSWORD_FILE: lambda *_: {"content": "the password file"},
}


class _NoProvider(mocks.Mocks):
    """Never called: the monitor answers, and the program calls no provider."""

    def call(self, args: mocks.MockCallArgs) -> tuple[dict[str, Any], None]:
        raise AssertionError(f"the program asked a provider for {args.token}")

    def new_resource(self, args: mocks.MockResourceArgs) -> tuple[str | None, dict[str, Any]]:
        raise AssertionError(f"the monitor did not answer for {args.name}")


class _Monitor(mocks.MockMonitor):
    """Creates every resource and records the requests.

    Pulumi's mock monitor loses options and secrets, and leaks an event loop in each thread.
    """

    def __init__(self, other_stacks: Mapping[str, Mapping[str, Any]]) -> None:
        super().__init__(_NoProvider())
        self._other_stacks = other_stacks
        self._requests: list[Any] = []

    def RegisterResource(self, request: Any) -> Any:  # noqa: N802 - Pulumi's name
        urn = self.make_urn(request.parent, request.type, request.name)
        if request.type == STACK:
            return resource_pb2.RegisterResourceResponse(urn=urn)
        self._requests.append(request)
        if pulumi.runtime.is_dry_run():
            return resource_pb2.RegisterResourceResponse(urn=urn, object=request.object)
        made = struct_pb2.Struct()
        made.CopyFrom(request.object)
        if answer := _MADE.get(request.type):
            made.update(answer(request.name, made))
        for name in set(request.additionalSecretOutputs) - _encrypted(request.object):
            made[name] = {rpc._special_sig_key: rpc._special_secret_sig, "value": made[name]}
        return resource_pb2.RegisterResourceResponse(urn=urn, id=f"{request.name}-id", object=made)

    def ReadResource(self, request: Any) -> Any:  # noqa: N802 - Pulumi's name
        read = struct_pb2.Struct()
        read.update(
            {
                "name": request.id,
                "outputs": self._other_stacks[request.id],
                "secretOutputNames": [],
            }
        )
        urn = self.make_urn(request.parent, request.type, request.name)
        return resource_pb2.ReadResourceResponse(urn=urn, properties=read)

    def declared(self, hooks: Mapping[str, ResourceHookFunction]) -> Iterator[Declared]:
        for request in self._requests:
            yield Declared(
                type=request.type,
                name=request.name,
                parent=request.parent.rpartition("::")[2],
                inputs=_values(json_format.MessageToDict(request.object)),
                depends_on=frozenset(urn.rpartition("::")[2] for urn in request.dependencies),
                imported=request.importId,
                retain_on_delete=request.retainOnDelete,
                delete_before_replace=request.deleteBeforeReplace,
                replace_on_changes=tuple(request.replaceOnChanges),
                ignore_changes=tuple(request.ignoreChanges),
                secret_outputs=tuple(request.additionalSecretOutputs),
                before_create=tuple(hooks[name] for name in request.hooks.before_create),
                after_create=tuple(hooks[name] for name in request.hooks.after_create),
                before_update=tuple(hooks[name] for name in request.hooks.before_update),
            )


class _Hooks:
    """Replaces the server through which the engine calls hooks."""

    def __init__(self) -> None:
        self.by_name: dict[str, ResourceHookFunction] = {}

    def register_resource_hook(self, hook: ResourceHook) -> None:
        self.by_name[hook.name] = hook.callback


def _encrypted(sent: Any) -> set[str]:
    """The properties that were sent as secrets."""
    values = _values(json_format.MessageToDict(sent))
    return {name for name, value in values.items() if isinstance(value, Secret)}


def _values(sent: Any) -> Any:
    """A sent value with its secrets marked."""
    match sent:
        case {rpc._special_sig_key: rpc._special_secret_sig}:
            return Secret(_values(sent["value"]))
        case dict():
            return {key: _values(value) for key, value in sent.items()}
        case list():
            return [_values(value) for value in sent]
        case _:
            return sent
