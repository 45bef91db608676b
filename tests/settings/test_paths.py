"""What paths mean: relative to the settings file, or to the working directory when the environment gives them."""

from pathlib import Path

import pytest

from etl.settings import Settings
from tests.settings.reading import mistake, read_settings


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, which is not the file's folder."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def dataset_of(file: Path, *lines: str) -> Path:
    return Path(read_settings(file, "\n".join(['run_tests = "all"', *lines])).destination.path)


@pytest.mark.parametrize(
    ("path", "place"), [("data", "data"), ("./a/b/", "a/b"), ("../data", "../data"), ("$NAME/$5 off", "x/$5 off")]
)
def test_path_in_the_file_is_relative_to_its_folder(
    file: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch, path: str, place: str
) -> None:
    monkeypatch.setenv("NAME", "x")
    assert dataset_of(file, "[destination]", f'path = "{path}"') == (file.parent / place).resolve()
    monkeypatch.chdir(file.parent)
    assert Path(Settings.load(file.name).destination.path) == (file.parent / place).resolve()


def test_path_in_the_environment_is_relative_to_the_working_directory(
    file: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("METRICS_ETL_DESTINATION__PATH", "data")
    assert dataset_of(file, "[destination]", 'path = "other"') == elsewhere / "data"
    monkeypatch.setenv("METRICS_ETL_RUN_TESTS", "all")
    assert Path(Settings.load().destination.path) == elsewhere / "data"


def test_without_a_path_the_dataset_lies_beside_the_file_or_its_folder_config(file: Path, elsewhere: Path) -> None:
    assert dataset_of(file) == file.parent / "data"
    (file.parent / "config").mkdir()
    assert dataset_of(file.parent / "config" / "prod.toml") == file.parent / "data"
    assert Path(Settings.load(needs_run_tests=False).destination.path) == elsewhere / "data"


def test_home_and_variables_are_expanded(file: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("TEAM", "red")
    assert dataset_of(file, "[destination]", 'path = "~/${TEAM}/$TEAM"') == Path("/home/me/red/red")
    monkeypatch.setenv("METRICS_ETL_DESTINATION__PATH", "$TEAM")
    assert dataset_of(file) == elsewhere / "red"


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("~nosuchuser/x", "this machine has no user ~nosuchuser. Write the path in full"),
        ("/x/$NOT_SET/y", "the variable $NOT_SET is not set. Set it, or write the path in full"),
        ("$EMPTY", "the variable $EMPTY is not set. Set it, or write the path in full"),
        ("${}/y", "the variable ${} is not set. Set it, or write the path in full"),
        (
            "postgresql://etl:pa$sword@db.example.com/metrics",
            "the user name or password names a variable that is not set. Set it, or write %24 for a $",
        ),
    ],
)
def test_unknown_home_or_variable_is_a_mistake_that_names_the_place(
    file: Path, monkeypatch: pytest.MonkeyPatch, path: str, words: str
) -> None:
    for section, key in (("destination", "path"), ("api", "ca_file")):
        text = f'run_tests = "all"\n[{section}]\n{key} = "{path}"'
        assert mistake(file, text) == f"prod.toml: [{section}] {key}: {words}"
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.setenv("METRICS_ETL_DESTINATION__PATH", path)
    assert mistake(file, 'run_tests = "all"') == f"environment: METRICS_ETL_DESTINATION__PATH: {words}"


def test_certificates_are_looked_for_beside_the_file(file: Path, elsewhere: Path) -> None:
    (file.parent / "ca.pem").write_text("certificates")
    assert read_settings(file, 'run_tests = "all"\n[api]\nca_file = "ca.pem"').api.ca_file == file.parent / "ca.pem"


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        *(("DESTINATION__PATH", value) for value in ('"/srv/x"', "'/srv/x'", "/srv/x ", " /srv/x", "$PLACE")),
        *(("WAREHOUSE__URL", url) for url in ('"duckdb://w.duckdb"', "duckdb://w.duckdb\r", "duckdb://'w.duckdb'")),
    ],
)
def test_blanks_and_quotes_around_a_path_are_a_mistake(
    file: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    """docker run --env-file hands them on, and they would make a second dataset."""
    monkeypatch.setenv("PLACE", '"/srv/x"')
    monkeypatch.setenv(f"METRICS_ETL_{variable}", value)
    words = f"METRICS_ETL_{variable} must not have spaces or quotes around it"
    assert mistake(file, 'run_tests = "all"').endswith(words)


def test_path_in_the_url_of_a_database_is_relative_to_the_file_too(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def url(text: str) -> str | None:
        return read_settings(file, f'run_tests = "all"\n[warehouse]\nurl = "{text}"').warehouse.url

    monkeypatch.setenv("SOMEWHERE", "/srv")
    assert url("duckdb://metrics.duckdb") == f"duckdb://{file.parent}/metrics.duckdb"
    whole = "duckdb:///srv/metrics.duckdb"
    assert url(whole) == url("duckdb://$SOMEWHERE/metrics.duckdb") == whole
    assert url("postgresql://host/database") == url("postgres://host/database") == "postgresql://host/database"
    assert url("postgresql://host?dbname=database") == "postgresql://host?dbname=database"
