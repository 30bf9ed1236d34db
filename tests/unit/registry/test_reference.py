import re
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from talos_registry_cache.registry.errors import InvalidReferenceError
from talos_registry_cache.registry.reference import Reference, listed, parse

DIGEST = "sha256:" + "0a" * 32

WORD = r"[a-z0-9]{1,8}"
HOSTS = st.from_regex(
    re.compile(rf"localhost|localhost:[0-9]{{1,4}}|{WORD}\.{WORD}(:[0-9]{{1,4}})?|\[::1\]:5000"),
    fullmatch=True,
).filter(lambda host: host not in {"docker.io", "index.docker.io"})
REPOSITORIES = st.from_regex(re.compile(rf"{WORD}([._/-]{WORD}|__{WORD}){{0,3}}"), fullmatch=True)
TAGS = st.from_regex(re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"), fullmatch=True)
DIGESTS = st.from_regex(re.compile(r"sha256:[a-f0-9]{64}"), fullmatch=True)
REFERENCES = st.builds(Reference, HOSTS, REPOSITORIES, TAGS, st.none() | DIGESTS)


@pytest.mark.parametrize(
    ("short", "canonical"),
    [
        ("nginx", "docker.io/library/nginx:latest"),
        ("nginx:1.27", "docker.io/library/nginx:1.27"),
        ("docker.io/nginx", "docker.io/library/nginx:latest"),
        ("index.docker.io/library/nginx", "docker.io/library/nginx:latest"),
        ("bitnami/redis:7", "docker.io/bitnami/redis:7"),
        ("ghcr.io/siderolabs/kubelet:v1.34.1", "ghcr.io/siderolabs/kubelet:v1.34.1"),
        ("registry.k8s.io/pause:3.10", "registry.k8s.io/pause:3.10"),
        ("localhost/app", "localhost/app:latest"),
        ("LOCAL/app", "LOCAL/app:latest"),
        ("localhost:5000/app:1", "localhost:5000/app:1"),
        ("10.5.0.1:5000/team/app", "10.5.0.1:5000/team/app:latest"),
        ("[fd00::1]:5000/app:1", "[fd00::1]:5000/app:1"),
    ],
)
def test_short_names_are_completed_as_in_docker(short: str, canonical: str) -> None:
    assert str(parse(short)) == canonical


def test_a_digest_needs_no_tag_and_is_requested_instead_of_it() -> None:
    assert parse(f"quay.io/a/b@{DIGEST}") == Reference("quay.io", "a/b", None, DIGEST)
    reference = parse(f"quay.io/a/b:v1@{DIGEST}")
    assert (reference.target, reference.tag) == (DIGEST, "v1")
    assert str(reference) == f"quay.io/a/b:v1@{DIGEST}"


@given(REFERENCES)
def test_the_canonical_form_parses_to_the_same_reference(reference: Reference) -> None:
    assert parse(str(reference)) == reference


@given(REPOSITORIES, TAGS)
def test_a_name_without_a_host_is_on_docker_hub(repository: str, tag: str) -> None:
    named = parse(f"docker.io/{repository}:{tag}")

    assert named == replace(named, registry="docker.io")
    if "." not in repository.partition("/")[0] and not repository.startswith("localhost/"):
        assert parse(f"{repository}:{tag}") == named


@given(st.text(max_size=40))
def test_any_text_is_refused_or_has_a_canonical_form(text: str) -> None:
    with suppress(InvalidReferenceError):
        reference = parse(text)
        assert parse(str(reference)) == reference


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "its repository is ''"),
        ("Nginx", "its repository is 'library/Nginx'; allowed: lowercase"),
        ("a//b", "its repository is 'a//b'"),
        ("http://quay.io/a", "its registry is 'http:'; allowed: HOST or HOST:PORT"),
        ("quay.io:port/a", "its registry is 'quay.io:port'"),
        ("quay.io:65536/a", "its registry is 'quay.io:65536'"),
        (f"{'a.' * 127}io/a", "its registry is 'a.a."),
        ("nginx:", "its tag is ''"),
        ("nginx:-1", "its tag is '-1'"),
        (f"nginx:{'1' * 129}", "at most 128"),
        ("nginx@", "its digest is ''; allowed: sha256: and 64 lowercase hexadecimal digits"),
        ("nginx@sha256:abc", "its digest is 'sha256:abc'"),
        (f"nginx@sha512:{'0' * 128}", "its digest is 'sha512:"),
        (f"nginx:1\n@{DIGEST}", "its tag is '1\\n'"),
        ("a/" * 130 + "b", "at most 255 characters"),
    ],
)
def test_an_invalid_reference_is_refused_with_the_wrong_part(text: str, said: str) -> None:
    with pytest.raises(InvalidReferenceError) as refused:
        parse(text)

    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("nginx", ["nginx"]),
        ("  nginx:1  # the proxy", ["nginx:1"]),
        ("nginx\t#1", ["nginx"]),
        ("# nginx", []),
        ("  #nginx", []),
        ("", []),
        # Not a comment, so that it is refused as a reference.
        ("nginx#1", ["nginx#1"]),
    ],
)
def test_a_list_of_images_has_one_per_line_and_comments(line: str, names: list[str]) -> None:
    assert list(listed(f"\n{line}\n")) == [(2, name) for name in names]
