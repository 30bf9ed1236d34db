"""What a previewed program sees of the environment of whoever previews it."""

from pathlib import Path

import pytest

from talos_registry_cache.review import environment
from tests.support.documents import ROOT

DOCUMENT = ROOT / "docs" / "pull-requests.md"


@pytest.mark.parametrize(
    "name",
    ["GITHUB_TOKEN", "SSH_AUTH_SOCK", "KUBECONFIG", "PULUMI_ACCESS_TOKEN", "PYTHONPATH", "PATH2"],
)
def test_what_is_not_allowed_by_name_is_not_seen(name: str) -> None:
    assert environment.allowed({name: "x", "PATH": "/bin"}) == {"PATH": "/bin"}


def test_locale_time_zone_engine_and_authorities_are_seen() -> None:
    inherited = {
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
        "DOCKER_HOST": "tcp://engine:2375",
        "SSL_CERT_FILE": "/etc/ca.pem",
    }
    assert environment.allowed(inherited) == inherited


@pytest.mark.parametrize("name", ["https_proxy", "HTTPS_PROXY"])
def test_a_proxy_is_seen_unless_it_has_a_password(name: str) -> None:
    plain, closed = "http://proxy:3128", "http://me:secret@proxy:3128"
    assert environment.allowed({name: plain}) == {name: plain}
    assert environment.allowed({name: closed}) == {}


def test_new_home_has_the_plugins_of_the_reviewers_pulumi_and_not_the_login(
    tmp_path: Path,
) -> None:
    own = tmp_path / "own"
    (own / "plugins" / "resource-docker-v1").mkdir(parents=True)
    (own / "credentials.json").write_text("{}")

    pulumi = environment.new_home(tmp_path, {"PULUMI_HOME": str(own)}) / ".pulumi"

    assert [entry.name for entry in pulumi.iterdir()] == ["plugins"]
    assert (pulumi / "plugins" / "resource-docker-v1").is_dir()


def test_document_names_all_that_is_allowed() -> None:
    text = DOCUMENT.read_text()
    named = environment.ALLOWED | environment.PROXIES
    assert [name for name in named if f"`{name}`" not in text] == []
