"""The images that files declare: Kubernetes manifests, Helm, kustomize, Compose and Talos.

Most fields are found by their names, so that custom resources, the values of charts and Talos's
machine configuration need no rules of their own:

    image: REFERENCE                            containers, most custom resources, Talos
    image: {reference: REFERENCE}               image volumes
    sidecarImage: REFERENCE                     some custom resources
    {registry, repository, tag, digest}         the values of charts
    images: [{name, newName, newTag, digest}]   kustomize

Files may come from anywhere, so their size and what aliases add to it are limited.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from yaml.nodes import MappingNode

from talos_registry_cache.registry import compose, reference
from talos_registry_cache.registry.errors import InvalidReferenceError, NotYamlError
from talos_registry_cache.registry.reference import Reference

SIZE_LIMIT = 16 << 20
"""Maximum size of a file in bytes; the largest charts with their definitions have 5 MB."""

KEYS_LIMIT = 2_000_000
"""How many keys a file may have, with those that merges (`<<`) repeat."""

SUFFIXES = frozenset({".yaml", ".yml", ".json"})
"""The names of the files that are read in a folder, as by kubectl."""

_DEFINITION = "CustomResourceDefinition"
_KUSTOMIZATIONS = {"Kustomization", "Component"}
# What the cluster reports, and texts that are not fields.
_NO_FIELDS = {"metadata", "status"}
_TEXTS = {"ConfigMap": {"data", "binaryData"}, "Secret": {"data", "stringData"}}
_TAGS, _DIGESTS = ("tag", "imageTag"), ("digest", "sha")
_SEPARATE = {"registry", *_TAGS, *_DIGESTS}
# Others would turn the tag 1.10 into 1.1.
_KEPT_TYPES = {"tag:yaml.org,2002:bool", "tag:yaml.org,2002:merge", "tag:yaml.org,2002:null"}


@dataclass(frozen=True, slots=True)
class Place:
    """A field of a file.

    Attributes:
        document: the number of its document in the file, from 1.
        path: its path in the document, such as spec.containers[0].image.
    """

    document: int
    path: str

    def __str__(self) -> str:
        """The document and the path."""
        return f"document {self.document}, {self.path}"


@dataclass(frozen=True, slots=True)
class Found:
    """An image, and the field that names it."""

    reference: Reference
    place: Place


@dataclass(frozen=True, slots=True)
class Doubtful:
    """A field that should name an image, and does not; the problem is a sentence."""

    problem: str
    place: Place

    def __str__(self) -> str:
        """The place and the problem."""
        return f"{self.place}: {self.problem}"


def files(path: Path, *, recursive: bool = False) -> Sequence[Path]:
    """A file, or the manifests in a folder, sorted.

    Args:
        path: the file or folder.
        recursive: whether to read the folders in a folder.
    """
    if not path.is_dir():
        return [path]
    inside = path.rglob("*") if recursive else path.iterdir()
    return sorted(one for one in inside if one.suffix in SUFFIXES and one.is_file())


def find(text: str, environment: Mapping[str, str] | None = None) -> Sequence[Found | Doubtful]:
    """Find the images that a file declares, in the order of the file.

    Args:
        text: YAML with any number of documents, or JSON.
        environment: values of the variables in Compose files; without it, they have defaults only.

    Raises:
        NotYamlError: the text is neither; the message is a sentence about the place.
    """
    found: list[Found | Doubtful] = []
    for number, document in enumerate(_documents(text), start=1):
        if document is None:
            continue
        if not isinstance(document, dict | list):
            raise NotYamlError(f"document {number} is a plain text, not a mapping or a list")
        for path, written in _fields(document, environment or {}):
            place = Place(number, path)
            if isinstance(written, InvalidReferenceError):
                found.append(Doubtful(str(written), place))
                continue
            try:
                found.append(Found(reference.parse(written), place))
            except InvalidReferenceError as error:
                found.append(Doubtful(str(error), place))
    return found


Field = tuple[str, str | InvalidReferenceError]
"""The path of a field, and its reference as written, or why it has none."""


def _fields(document: Any, environment: Mapping[str, str]) -> Iterator[Field]:
    if isinstance(document, dict) and compose.is_compose(document):
        for path, text in compose.images(document):
            try:
                yield path, compose.interpolate(text, environment)
            except InvalidReferenceError as error:
                yield path, error
        return
    for path, mapping in _mappings(document):
        if "kind" not in mapping or _text(mapping, "kind") in _KUSTOMIZATIONS:
            yield from ((_join(path, key), text) for key, text in _of_kustomize(mapping))
        yield from ((_join(path, key), text) for key, text in _of_mapping(mapping, path))


def _mappings(document: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The mappings that may have images, with their paths; one with several aliases only once."""
    seen: set[int] = set()
    ahead = [("", document)]
    while ahead:
        path, node = ahead.pop()
        if id(node) in seen:
            continue
        if isinstance(node, dict):
            yield path, node
            left_out = _left_out(node)
            inside = [
                (_join(path, str(key)), value) for key, value in node.items() if key not in left_out
            ]
        elif isinstance(node, list):
            inside = [(f"{path}[{number}]", value) for number, value in enumerate(node)]
        else:
            continue
        seen.add(id(node))
        ahead += reversed(inside)


def _left_out(mapping: Mapping[str, Any]) -> set[str]:
    """The keys of a mapping that have no images to pull."""
    kind = mapping.get("kind")
    if not isinstance(kind, str) or "apiVersion" not in mapping:
        return set()
    # Its schema describes fields, and is large.
    return set(mapping) if kind == _DEFINITION else _NO_FIELDS | _TEXTS.get(kind, set())


def _of_mapping(mapping: Mapping[str, Any], path: str) -> Iterator[Field]:
    is_image = path.rpartition(".")[2].lower().endswith("image")
    name = next((key for key in ("repository", "image") if _text(mapping, key)), None)
    if name and (_SEPARATE & mapping.keys() or (is_image and name == "repository")):
        if "://" not in mapping[name]:
            yield name, _separate(mapping, name)
    elif name == "image":
        yield name, mapping["image"]
    elif is_image and _text(mapping, "reference"):
        yield "reference", mapping["reference"]
    for key, value in mapping.items():
        is_other = key == "imageName" or (isinstance(key, str) and key.endswith("Image"))
        # These names are less clear: a disk may have one.
        if is_other and isinstance(value, str) and "/" in value and {":", "@"} & set(value):
            yield key, value


def _separate(mapping: Mapping[str, Any], name: str) -> str | InvalidReferenceError:
    """The reference of an image whose parts are separate fields."""
    registry = _text(mapping, "registry").rstrip("/")
    full = f"{registry}/{mapping[name]}" if registry else mapping[name]
    tag = next(filter(None, (_text(mapping, key) for key in _TAGS)), "")
    digest = next(filter(None, (_text(mapping, key) for key in _DIGESTS)), "")
    return _with(full, tag, digest, "the output of `helm template`, which has it")


def _of_kustomize(mapping: Mapping[str, Any]) -> Iterator[Field]:
    images = mapping.get("images")
    for number, image in enumerate(images if isinstance(images, list) else ()):
        if isinstance(image, dict) and {"newName", "newTag", "digest"} & image.keys():
            name = _text(image, "newName") or _text(image, "name")
            tag, digest = _text(image, "newTag"), _text(image, "digest")
            allowed = "the output of `kustomize build`, which has it"
            yield f"images[{number}]", _with(name, tag, digest, allowed)


def _with(name: str, tag: str, digest: str, allowed: str) -> str | InvalidReferenceError:
    if digest and ":" not in digest:
        digest = f"sha256:{digest}"
    if not tag and not digest and not {":", "@"} & set(name.rpartition("/")[2]):
        return InvalidReferenceError(f"{name!r} has no tag here; allowed: {allowed}")
    return f"{name}{tag and f':{tag}'}{digest and f'@{digest}'}"


def _text(mapping: Mapping[str, Any], key: str) -> str:
    value = mapping.get(key)
    return value if isinstance(value, str) else ""


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _documents(text: str) -> Sequence[Any]:
    try:
        if text.lstrip().startswith(("{", "[")):
            try:
                # JSON may be indented with tabs, which YAML forbids.
                return [json.loads(text, parse_int=str, parse_float=str)]
            except ValueError:
                pass
        return list(yaml.load_all(text, _Loader))
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise NotYamlError(f"{line}not YAML: {error.problem or error.context}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise NotYamlError(f"not YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise NotYamlError("it is nested too deeply") from None


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """A safe loader that keeps numbers and dates as they are written."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - as in its base
        first: [(tag, form) for tag, form in forms if tag in _KEPT_TYPES]
        for first, forms in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._keys = 0

    def flatten_mapping(self, node: MappingNode) -> None:
        """Add the keys of merges, which may use the same mapping any number of times."""
        super().flatten_mapping(node)
        self._keys += len(node.value)
        if self._keys > KEYS_LIMIT:
            raise yaml.constructor.ConstructorError(
                problem=f"more than {KEYS_LIMIT} keys, with merged ones",
                problem_mark=node.start_mark,
            )
