"""The images of a Compose file.

Variables have the forms of the Compose specification (12-interpolation.md).
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from talos_registry_cache.registry.errors import InvalidReferenceError

# Far longer than a reference, and nested less deeply than Python's stack.
LONGEST = 1000
NOT_PULLED = ("build", "never")
"""Values of `pull_policy` with which Compose never pulls the image of a service."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_EXPRESSION = re.compile(
    r"(?P<name>[A-Za-z_][A-Za-z0-9_]*)((?P<operator>:?[-?+])(?P<word>.*))?", re.DOTALL
)


def is_compose(document: Mapping[str, Any]) -> bool:
    """Whether a document is a Compose file: its services have images, or are built."""
    services = document.get("services")
    return (
        "kind" not in document
        and isinstance(services, dict)
        and any(isinstance(one, dict) and _is_service(one) for one in services.values())
    )


def images(document: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The paths and texts of the fields that name images to pull, with their variables."""
    for name, service in document["services"].items():
        if not isinstance(service, dict):
            continue
        image = service.get("image")
        if isinstance(image, str) and service.get("pull_policy") not in NOT_PULLED:
            yield f"services.{name}.image", image
        volumes = service.get("volumes")
        for number, volume in enumerate(volumes if isinstance(volumes, list) else ()):
            match volume:
                case {"type": "image", "source": str(source)}:
                    yield f"services.{name}.volumes[{number}].source", source


def interpolate(text: str, environment: Mapping[str, str]) -> str:
    """Replace the variables in a text.

    Raises:
        InvalidReferenceError: a variable has no value, or an invalid form.
    """
    if len(text) > LONGEST:
        raise InvalidReferenceError(f"it has {len(text)} characters; allowed: at most {LONGEST}")
    parts, at = [], 0
    while (dollar := text.find("$", at)) >= 0:
        parts.append(text[at:dollar])
        after = dollar + 1
        if text.startswith("$", after):
            parts.append("$")
            at = after + 1
        elif text.startswith("{", after):
            end = _closing(text, after)
            parts.append(_value(text[after + 1 : end], environment))
            at = end + 1
        elif name := _NAME.match(text, after):
            parts.append(_value(name[0], environment))
            at = name.end()
        else:
            raise _invalid(text)
    return "".join((*parts, text[at:]))


def _is_service(service: Mapping[str, Any]) -> bool:
    return isinstance(service.get("image"), str) or "build" in service


def _value(expression: str, environment: Mapping[str, str]) -> str:
    found = _EXPRESSION.fullmatch(expression)
    if not found:
        raise _invalid(f"${{{expression}}}")
    name, operator, word = found["name"], found["operator"] or "", found["word"] or ""
    value = environment.get(name)
    # With a colon, an empty value counts as none.
    has_value = bool(value) if operator.startswith(":") else value is not None
    match operator[-1:]:
        case "+":
            return interpolate(word, environment) if has_value else ""
        case "-" if not has_value:
            return interpolate(word, environment)
    if value is None or not has_value:
        reason = f" ({word})" if word else ""
        raise InvalidReferenceError(
            f"the variable {name} has no value{reason}; allowed: a value in the environment, or "
            f"a default such as ${{{name}:-1.0}}"
        )
    return value


def _closing(text: str, start: int) -> int:
    """The position of the brace that closes the one at the start."""
    depth = 0
    for at in range(start, len(text)):
        depth += (text[at] == "{") - (text[at] == "}")
        if not depth:
            return at
    raise _invalid(text)


def _invalid(text: str) -> InvalidReferenceError:
    return InvalidReferenceError(
        f"{text!r} is not a variable of Compose; allowed: $NAME, ${{NAME}} and ${{NAME:-default}}"
    )
