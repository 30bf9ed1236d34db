import pytest
import typer
from typer.testing import CliRunner

from talos_registry_cache.cli import options
from talos_registry_cache.cli.errors import UsageError


def test_a_user_names_password_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(options.PASSWORD, "s3cret")

    assert options.reader("adam") == ("adam", "s3cret")
    assert options.reader(None) is None


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> typer.Typer:
    """A program that prints the length of the password."""
    monkeypatch.delenv(options.PASSWORD, raising=False)
    app = typer.Typer()

    @app.command()
    def program(username: str) -> None:
        found = options.reader(username)
        print(len(found[1]) if found else None)  # noqa: T201

    return app


def test_the_password_prompt_shows_no_password_and_refuses_an_empty_one(asked: typer.Typer) -> None:
    done = CliRunner().invoke(asked, ["adam"], input="s3cret\n")
    empty = CliRunner().invoke(asked, ["adam"], input="\n")

    assert done.stdout.strip().endswith("6")
    assert "Password of adam" in done.output
    assert "s3cret" not in done.output
    assert isinstance(empty.exception, UsageError)
    assert "set CACHECTL_PASSWORD" in str(empty.exception)
