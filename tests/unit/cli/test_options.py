import pytest
import typer
from typer.testing import CliRunner

from talos_registry_cache.cli import options
from talos_registry_cache.cli.errors import UsageError


def test_nobody_asks_where_no_name_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(options.PASSWORD, "s3cret")

    assert options.reader(None) is None


def test_the_password_is_that_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(options.PASSWORD, "s3cret")

    assert options.reader("adam") == ("adam", "s3cret")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> typer.Typer:
    """A program that says only how long the password is."""
    monkeypatch.delenv(options.PASSWORD, raising=False)
    app = typer.Typer()

    @app.command()
    def program(username: str) -> None:
        found = options.reader(username)
        print(len(found[1]) if found else None)  # noqa: T201

    return app


def test_it_is_asked_for_without_showing_it(asked: typer.Typer) -> None:
    done = CliRunner().invoke(asked, ["adam"], input="s3cret\n")

    assert done.stdout.strip().endswith("6")
    assert "Password of adam" in done.output
    assert "s3cret" not in done.output


def test_no_password_is_a_mistake(asked: typer.Typer) -> None:
    done = CliRunner().invoke(asked, ["adam"], input="\n")

    assert isinstance(done.exception, UsageError)
    assert "set CACHECTL_PASSWORD" in str(done.exception)
