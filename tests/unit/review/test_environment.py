"""A previewed program sees an allow-list of the user's environment, and a home of its own."""

from pathlib import Path

import pytest

from talos_registry_cache.review import environment
from tests.support.documents import ROOT

DOCUMENT = ROOT / "docs" / "pull-requests.md"


@pytest.mark.parametrize(
    "name",
    ["GITHUB_TOKEN", "SSH_AUTH_SOCK", "KUBECONFIG", "PULUMI_ACCESS_TOKEN", "PYTHONPATH", "PATH2"],
)
def test_variable_that_is_not_allowed_is_hidden(name: str) -> None:
    assert environment.allowed({name: "x", "PATH": "/bin"}) == {"PATH": "/bin"}


@pytest.mark.parametrize("name", ["https_proxy", "HTTPS_PROXY"])
def test_proxy_is_visible_unless_it_has_a_password(name: str) -> None:
    plain, closed = "http://proxy:3128", "http://me:secret@proxy:3128"
    assert environment.allowed({name: plain}) == {name: plain}
    assert environment.allowed({name: closed}) == {}


def test_new_home_has_the_users_pulumi_plugins_and_not_the_login(tmp_path: Path) -> None:
    own = tmp_path / "own"
    (own / "plugins" / "resource-docker-v1").mkdir(parents=True)
    (own / "credentials.json").write_text("{}")

    created = environment.create(tmp_path, {"PULUMI_HOME": str(own)})

    home = Path(created["PULUMI_HOME"])
    assert home.is_relative_to(created["HOME"])
    assert [entry.name for entry in home.iterdir()] == ["plugins"]
    assert (home / "plugins" / "resource-docker-v1").is_dir()


def test_every_visible_variable_is_documented(tmp_path: Path) -> None:
    text = DOCUMENT.read_text()
    named = {*environment.ALLOWED, *environment.PROXIES, *environment.create(tmp_path, {})}
    assert [name for name in named if f"`{name}`" not in text] == []
