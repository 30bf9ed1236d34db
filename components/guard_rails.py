"""Guard rails: what holds for every resource of a stack, whichever component declares it.

Pulumi's own policy packs need a runner that machines behind a package mirror do not have
(docs/decisions/0012-guard-rails.md), so these run within the program, in every preview and update.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pulumi
import pulumi_docker as docker

from components.private_files import FOLDER
from components.settings.values import ANY_ADDRESS

SECRET_NAME = re.compile(r"(?<!HT)PASSW|SECRET|TOKEN|CREDENTIAL|PRIVATE_?KEY", re.IGNORECASE)
URL_WITH_CREDENTIALS = re.compile(r"://[^/@\s]+:[^/@\s]+@")
MOVING_TAGS = ("latest", "")


class GuardRailError(pulumi.RunError):
    """A resource breaks a rule; the message says which one."""


def put_up(publish_on: Sequence[str] | None) -> None:
    """Check every resource that is declared from now on.

    Args:
        publish_on: the addresses that the stack names for its ports, or None where it names none.
    """

    def check(
        args: pulumi.ResourceTransformationArgs,
    ) -> pulumi.ResourceTransformationResult | None:
        broken = list(broken_rules(args.resource, args.props, publish_on or ()))
        if broken:
            raise GuardRailError(f"{args.type_} {args.name}: {'; '.join(broken)}")
        return None

    pulumi.runtime.register_stack_transformation(check)


def broken_rules(
    resource: pulumi.Resource, props: Mapping[str, Any], publish_on: Sequence[str]
) -> Iterator[str]:
    """The rules that a resource breaks, in words.

    Args:
        resource: the resource.
        props: its properties, as they are declared; those that are known only later are not judged.
        publish_on: the addresses that the stack names for its ports.
    """
    match resource:
        case docker.RemoteImage():
            yield from _image(props.get("name"))
        case docker.Container() if props.get("must_run") is not False:
            yield from _ports(props.get("ports") or (), publish_on)
            yield from _environment(props.get("envs") or ())
            yield from _hardening(props)
        case docker.Container():
            yield from _environment(props.get("envs") or ())
        case docker.Service():
            yield from _service(props, publish_on)


def _image(name: object) -> Iterator[str]:
    if isinstance(name, str) and "@sha256:" not in name:
        tag = name.rpartition("/")[2].partition(":")[2]
        if tag in MOVING_TAGS:
            yield f"image {name} is not pinned; name a release, such as registry:3.1.2"


def _ports(ports: Sequence[docker.ContainerPortArgs], publish_on: Sequence[str]) -> Iterator[str]:
    for port in ports:
        address = port.ip or ANY_ADDRESS
        if address == ANY_ADDRESS and address not in publish_on:
            yield f"port {port.external} is open on 0.0.0.0, which caches.publishOn does not name"


def _environment(variables: Sequence[object]) -> Iterator[str]:
    for variable in variables:
        name, _, value = str(variable).partition("=")
        is_file = value.startswith(f"{FOLDER}/")
        if (SECRET_NAME.search(name) and value and not is_file) or URL_WITH_CREDENTIALS.search(
            value
        ):
            yield f"{name} has a credential, which everyone who may inspect the container sees"


def _service(props: Mapping[str, Any], publish_on: Sequence[str]) -> Iterator[str]:
    """The rules that hold for what runs on a Swarm, which opens ports on all addresses."""
    task = props["task_spec"]
    container = task.container_spec
    yield from _image(container.image)
    variables = (container.env or {}).items()
    yield from _environment([f"{name}={value}" for name, value in variables])
    for port in props["endpoint_spec"].ports or ():
        if ANY_ADDRESS not in publish_on:
            text = (
                "is open on 0.0.0.0, as all of a Swarm's are, which caches.publishOn does not name"
            )
            yield f"port {port.published_port} {text}"
    if task.restart_policy is None or task.restart_policy.condition != "any":
        yield "it is not restarted whatever ended it (condition: any)"
    if not container.read_only:
        yield "its root file system is not read-only"
    yield from _log(task.log_driver.options if task.log_driver else None)


def _log(options: Mapping[str, str] | None) -> Iterator[str]:
    if not {"max-size", "max-file"} <= set(options or {}):
        yield "its log is not bounded (max-size and max-file)"


def _hardening(props: Mapping[str, Any]) -> Iterator[str]:
    if props.get("restart") != "always":
        yield "it is not restarted with the engine (restart: always)"
    yield from _log(props.get("log_opts"))
    if not props.get("read_only") or props.get("privileged"):
        yield "its root file system is not read-only"
    if "no-new-privileges" not in (props.get("security_opts") or ()):
        yield "its processes can gain privileges (no-new-privileges)"
