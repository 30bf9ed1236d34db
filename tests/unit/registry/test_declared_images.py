"""The images that Kubernetes manifests, charts, kustomize, Compose and Talos files declare."""

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from talos_registry_cache.registry import declared_images, reference
from talos_registry_cache.registry.declared_images import Doubtful, Found
from talos_registry_cache.registry.errors import NotYamlError

HEX = "0123456789abcdef" * 4
DIGEST = f"sha256:{HEX}"


def found(text: str, environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """The canonical references by their paths."""
    all_found = declared_images.find(text, environment)
    assert all(isinstance(one, Found) for one in all_found), [*map(str, all_found)]
    return {one.place.path: str(one.reference) for one in all_found if isinstance(one, Found)}


def doubts(text: str, environment: Mapping[str, str] | None = None) -> list[str]:
    all_found = declared_images.find(text, environment)
    return [str(one) for one in all_found if isinstance(one, Doubtful)]


# Kubernetes


def test_all_image_fields_of_a_pod_are_found() -> None:
    manifest = f"""
    apiVersion: v1
    kind: Pod
    metadata: {{name: app, annotations: {{image: not/this:1}}}}
    spec:
      initContainers: [{{name: first, image: busybox:1.37}}]
      containers:
        - {{name: app, image: "ghcr.io/team/app:1@{DIGEST}"}}
        - {{name: side, image: quay.io/team/side}}
      ephemeralContainers: [{{name: debug, image: registry.k8s.io/e2e/tools:2}}]
      volumes:
        - {{name: model, image: {{reference: quay.io/team/model:3, pullPolicy: Always}}}}
    status: {{containerStatuses: [{{image: docker.io/not/that:1, imageID: not/that}}]}}
    """

    assert found(manifest) == {
        "spec.initContainers[0].image": "docker.io/library/busybox:1.37",
        "spec.containers[0].image": f"ghcr.io/team/app:1@{DIGEST}",
        "spec.containers[1].image": "quay.io/team/side:latest",
        "spec.ephemeralContainers[0].image": "registry.k8s.io/e2e/tools:2",
        "spec.volumes[0].image.reference": "quay.io/team/model:3",
    }


def test_every_document_and_every_item_of_a_list_is_read() -> None:
    pod = {"apiVersion": "v1", "kind": "Pod", "spec": {"containers": [{"image": "a:1"}]}}
    cron = {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "spec": {"jobTemplate": {"spec": {"template": {"spec": {"containers": [{"image": "b"}]}}}}},
    }
    listed = {"apiVersion": "v1", "kind": "List", "items": [cron, pod]}
    text = f"---\n# nothing\n---\n{yaml.safe_dump(pod)}---\n{json.dumps(listed)}\n"

    all_found = declared_images.find(text)

    assert [str(one.place) for one in all_found] == [
        "document 2, spec.containers[0].image",
        "document 3, items[0].spec.jobTemplate.spec.template.spec.containers[0].image",
        "document 3, items[1].spec.containers[0].image",
    ]


def test_json_may_be_indented_with_tabs() -> None:
    text = json.dumps({"items": [{"spec": {"image": "a:1"}}]}, indent="\t")

    assert found(text) == {"items[0].spec.image": "docker.io/library/a:1"}


def test_texts_and_schemas_are_not_fields() -> None:
    objects = [
        {"apiVersion": "v1", "kind": "ConfigMap", "data": {"image": "logo.png"}},
        {"apiVersion": "v1", "kind": "Secret", "stringData": {"image": "x"}},
        {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "spec": {"schema": {"image": "described"}},
        },
        {"image": True, "other": {"image": None}, "third": {"image": ""}},
    ]

    assert found(yaml.safe_dump_all(objects)) == {}


def test_custom_resources_name_images_in_other_fields_too() -> None:
    text = """
    spec:
      imageName: ghcr.io/team/postgresql:17
      sidecarImage: quay.io/team/reloader:1
      bootImage: talos.raw
      machineImage: ubuntu:24.04
    """

    assert found(text) == {
        "spec.imageName": "ghcr.io/team/postgresql:17",
        "spec.sidecarImage": "quay.io/team/reloader:1",
    }


# Charts and kustomize

RENDERED = """\
---
# Source: app/crds/things.yaml
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: things.team.test
spec:
  versions:
    - name: v1
      schema: {openAPIV3Schema: {properties: {image: {type: string, default: not-this}}}}
---
# Source: app/templates/config.yaml
apiVersion: v1
kind: ConfigMap
metadata:
  name: app
data:
  deployment.yaml: |
    image: not-this-either
---
# Source: app/templates/daemonset.yaml
apiVersion: apps/v1
kind: DaemonSet
metadata:
  name: app
spec:
  template:
    spec:
      containers:
        - name: app
          image: "quay.io/team/app:1.10"
          args:
            - --helper=quay.io/team/not-found:1
          env:
            - {name: RELATED, value: "quay.io/team/not-found:2"}
---
# Source: app/templates/tests/connection.yaml
apiVersion: v1
kind: Pod
metadata:
  name: app-test
  annotations: {helm.sh/hook: test}
spec:
  containers: [{name: wget, image: busybox, command: [wget]}]
---
# Source: app/templates/empty.yaml
"""


def test_the_output_of_helm_has_the_images_of_its_workloads() -> None:
    assert found(RENDERED) == {
        "spec.template.spec.containers[0].image": "quay.io/team/app:1.10",
        "spec.containers[0].image": "docker.io/library/busybox:latest",
    }


@pytest.mark.parametrize(
    ("values", "path", "image"),
    [
        ({"repository": "nginx", "tag": "1"}, "image.repository", "docker.io/library/nginx:1"),
        (
            {"registry": "quay.io", "repository": "team/app", "tag": "1", "digest": DIGEST},
            "image.repository",
            f"quay.io/team/app:1@{DIGEST}",
        ),
        (
            {"registry": "quay.io/", "repository": "team/app", "tag": "", "digest": DIGEST},
            "image.repository",
            f"quay.io/team/app@{DIGEST}",
        ),
        (
            {"registry": "", "repository": "ghcr.io/team/app", "tag": "1", "sha": HEX},
            "image.repository",
            f"ghcr.io/team/app:1@{DIGEST}",
        ),
        (
            {"registry": "quay.io", "image": "team/app", "tag": "v1", "pullPolicy": "Always"},
            "image.image",
            "quay.io/team/app:v1",
        ),
        ({"image": "quay.io/team/app", "imageTag": "2"}, "image.image", "quay.io/team/app:2"),
    ],
)
def test_the_parts_of_a_reference_may_be_separate(
    values: Mapping[str, str], path: str, image: str
) -> None:
    assert found(yaml.safe_dump({"image": values})) == {path: image}


def test_a_tag_stays_as_it_is_written() -> None:
    for tag in ("1.10", "0x10", "2026-11-28", "1e3", "010"):
        text = f"image: {{repository: quay.io/a, tag: {tag}}}"
        assert found(text) == {"image.repository": f"quay.io/a:{tag}"}


def test_values_without_a_tag_are_doubtful() -> None:
    [doubt] = doubts("app: {image: {repository: quay.io/team/app, tag: ''}}")

    assert doubt == (
        "document 1, app.image.repository: 'quay.io/team/app' has no tag here; "
        "allowed: the output of `helm template`, which has it"
    )


def test_a_source_repository_is_not_an_image() -> None:
    assert found("git: {repository: 'https://git.test/team/app', tag: v1}") == {}


def test_the_images_of_a_kustomization_are_found() -> None:
    text = f"""
    kind: Kustomization
    images:
      - {{name: app, newTag: v2}}
      - {{name: app, newName: localhost:5000/app, newTag: v3}}
      - {{name: quay.io/team/tool, digest: "{DIGEST}"}}
    """

    assert found(text) == {
        "images[0]": "docker.io/library/app:v2",
        "images[1]": "localhost:5000/app:v3",
        "images[2]": f"quay.io/team/tool@{DIGEST}",
    }
    [doubt] = doubts("images: [{name: app, newName: quay.io/app}]")
    assert "allowed: the output of `kustomize build`" in doubt


# Compose

SERVICES = """
x-base: &base {image: "nginx:${NGINX:-1.29}", restart: always}
services:
  web: *base
  merged: {<<: *base, ports: ["80:80"]}
  built: {build: .}
  own: {build: ., image: team/own, pull_policy: build}
  tool:
    image: ${REGISTRY-quay.io}/team/tool:$TOOL
    volumes: [{type: image, source: "models:${MODEL:+big}", target: /models}, "data:/data"]
"""


def test_services_that_are_pulled_have_their_variables() -> None:
    assert found(SERVICES, {"TOOL": "2", "MODEL": "yes", "NGINX": ""}) == {
        "services.web.image": "docker.io/library/nginx:1.29",
        "services.merged.image": "docker.io/library/nginx:1.29",
        "services.tool.image": "quay.io/team/tool:2",
        "services.tool.volumes[0].source": "docker.io/library/models:big",
    }


@pytest.mark.parametrize(
    ("image", "environment", "full"),
    [
        ("a:${T:-1}", {}, "a:1"),
        ("a:${T:-1}", {"T": ""}, "a:1"),
        ("a:${T-1}", {"T": "2"}, "a:2"),
        ("a:${T:-${U:-3}}", {}, "a:3"),
        ("a:${T:-${U:-3}}", {"U": "4"}, "a:4"),
        ("a${T:+:5}", {}, "a:latest"),
        ("a${T:+:5}", {"T": "x"}, "a:5"),
        ("a:${T:?say it}", {"T": "6"}, "a:6"),
        ("a:$T", {"T": "7"}, "a:7"),
    ],
)
def test_variables_have_the_forms_of_compose(
    image: str, environment: Mapping[str, str], full: str
) -> None:
    text = yaml.safe_dump({"services": {"one": {"image": image}}})

    assert found(text, environment) == {"services.one.image": f"docker.io/library/{full}"}


@pytest.mark.parametrize(
    ("image", "said"),
    [
        ("a:$T", "the variable T has no value; allowed: "),
        ("a:${T:?say it}", "the variable T has no value (say it)"),
        ("a:${T", "not a variable of Compose"),
        ("a:${}", "not a variable of Compose"),
        ("a:$-", "not a variable of Compose"),
        ("$$T", "its repository is 'library/$T'"),
        ("a:" + "${T:-" * 900, "allowed: at most 1000"),
    ],
)
def test_an_image_with_a_wrong_variable_is_doubtful(image: str, said: str) -> None:
    [doubt] = doubts(yaml.safe_dump({"services": {"one": {"image": image}}}))

    assert doubt.startswith("document 1, services.one.image: ")
    assert said in doubt


# Talos


def test_the_images_of_a_machine_configuration_are_found() -> None:
    text = """
    version: v1alpha1
    machine:
      install: {image: "ghcr.io/siderolabs/installer:v1.13.0", wipe: false}
      kubelet: {image: "ghcr.io/siderolabs/kubelet:v1.36.0"}
    cluster:
      apiServer: {image: "registry.k8s.io/kube-apiserver:v1.36.0"}
      etcd: {image: "registry.k8s.io/etcd:3.6.4-0"}
    """

    assert [*found(text)] == [
        "machine.install.image",
        "machine.kubelet.image",
        "cluster.apiServer.image",
        "cluster.etcd.image",
    ]


# Wrong input


def test_a_field_without_an_image_is_named() -> None:
    text = "---\nkind: x\n---\nspec: {containers: [{image: ok:1}, {image: 'a b'}, {image: A}]}"

    assert [one.partition(" is not")[0] for one in doubts(text)] == [
        "document 2, spec.containers[1].image: 'a b'",
        "document 2, spec.containers[2].image: 'A'",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("just a text", "document 1 is a plain text, not a mapping or a list"),
        ("a: 1\n---\nb", "document 2 is a plain text"),
        ("a: 1\nb: c: d\n", "line 2: not YAML: mapping values are not allowed"),
        ("image: {{ .Values.image }}\n", "line 1: not YAML: "),
        ("{", "not YAML"),
        ("a: *b", "undefined alias"),
        ("a: !!python/object/apply:os.abort []", "could not determine a constructor"),
        ("\x00", "not YAML: unacceptable character"),
        ("[" * 100_000, "nested too deeply"),
        ("- " * 100_000 + "a", "not YAML: exceeded maximum nesting depth"),
    ],
)
def test_what_is_not_yaml_is_refused_with_its_place(text: str, said: str) -> None:
    with pytest.raises(NotYamlError) as refused:
        declared_images.find(text)

    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_aliases_do_not_multiply_the_work() -> None:
    aliases = ", ".join("*a{0}" for _ in range(9))
    lines = [f"a{one}: &a{one} [{aliases.format(one - 1)}]\n" for one in range(1, 40)]

    assert found("a0: &a0 {image: x}\n" + "".join(lines)) == {
        "a0.image": "docker.io/library/x:latest"
    }
    assert found("a: &a [*a, {image: x}]") == {"a[1].image": "docker.io/library/x:latest"}


def test_merges_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(declared_images, "KEYS_LIMIT", 1000)
    keys = ", ".join(f"k{number}: 1" for number in range(100))
    merged = "".join(f"b{number}: {{<<: *a}}\n" for number in range(20))

    with pytest.raises(NotYamlError, match="more than 1000 keys, with merged ones"):
        declared_images.find(f"a: &a {{{keys}}}\n{merged}")


# All cases

PART = st.from_regex(r"[a-z0-9]{1,8}([._-][a-z0-9]{1,5})?", fullmatch=True)
TAG = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,10}", fullmatch=True)
REGISTRY = st.sampled_from(["docker.io", "quay.io", "registry.test:5000", "localhost"])
IMAGES = st.builds(
    reference.Reference,
    REGISTRY,
    st.lists(PART, min_size=2, max_size=3).map("/".join),
    TAG,
    st.none() | st.text("0123456789abcdef", min_size=64, max_size=64).map("sha256:{}".format),
)


def as_text(image: reference.Reference) -> dict[str, Any]:
    return {"image": str(image)}


def as_parts(image: reference.Reference) -> dict[str, Any]:
    parts = {"registry": image.registry, "repository": image.repository, "tag": image.tag}
    return {"image": parts | ({"digest": image.digest} if image.digest else {})}


def as_volume(image: reference.Reference) -> dict[str, Any]:
    return {"volumes": [{"name": "v", "image": {"reference": str(image)}}]}


WRITTEN = st.tuples(IMAGES, st.sampled_from([as_text, as_parts, as_volume]))
KEY = st.sampled_from(["spec", "template", "items", "a.b", "x y"])


@st.composite
def documents(draw: st.DrawFn) -> tuple[Any, list[str]]:
    """A document of nested mappings and lists with images, and these."""
    leaf = WRITTEN.map(lambda one: (one[1](one[0]), [str(one[0])]))

    def inside(children: st.SearchStrategy[tuple[Any, list[str]]]) -> Any:
        return st.one_of(
            st.lists(children, max_size=3).map(
                lambda some: ([one for one, _ in some], [x for _, names in some for x in names])
            ),
            st.dictionaries(KEY, children, min_size=1, max_size=3).map(
                lambda some: (
                    {key: one for key, (one, _) in some.items()},
                    [x for _, names in some.values() for x in names],
                )
            ),
        )

    return draw(st.recursive(leaf, inside, max_leaves=6))


@given(st.lists(documents(), max_size=3))
def test_every_image_that_is_put_in_is_found_again(given: list[tuple[Any, list[str]]]) -> None:
    expected = [name for _, names in given for name in names]
    as_yaml = yaml.safe_dump_all([document for document, _ in given])

    for text in (as_yaml, *(json.dumps(document) for document, _ in given[:1] if len(given) == 1)):
        all_found = declared_images.find(text)
        assert sorted(str(one.reference) for one in all_found if isinstance(one, Found)) == sorted(
            expected
        )
        assert not [one for one in all_found if isinstance(one, Doubtful)]


@given(st.text(max_size=200) | st.text("{}[]:-&*<$a \n\"'", max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    with suppress(NotYamlError):
        declared_images.find(text)


WORDS = """
apiVersion kind metadata status spec data image images imageName sideImage reference registry
repository tag digest sha services build pull_policy volumes type source name newName newTag items
Kustomization ConfigMap CustomResourceDefinition v1 a:1 quay.io/a/b:1 ${A:-b} $A {{a}} <<
"""
ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(WORDS.split()),
    lambda inside: (
        st.lists(inside, max_size=3)
        | st.dictionaries(st.sampled_from(WORDS.split()) | st.integers(), inside, max_size=5)
    ),
    max_leaves=30,
)


@given(ANY)
def test_any_document_is_read_or_refused(document: Any) -> None:
    for text in (yaml.safe_dump(document), json.dumps(document)):
        with suppress(NotYamlError):
            declared_images.find(text)


# Files


def test_a_folder_has_the_manifests_in_it(tmp_path: Path) -> None:
    for name in ("b.yaml", "a.yml", "c.json", "readme.md", "more/d.yaml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")

    def names(*, recursive: bool) -> list[str]:
        all_files = declared_images.files(tmp_path, recursive=recursive)
        return [str(one.relative_to(tmp_path)) for one in all_files]

    assert names(recursive=False) == ["a.yml", "b.yaml", "c.json"]
    assert names(recursive=True) == ["a.yml", "b.yaml", "c.json", "more/d.yaml"]
    assert declared_images.files(tmp_path / "readme.md") == [tmp_path / "readme.md"]
