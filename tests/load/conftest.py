"""The targets that every law of loads is tried on."""

import shutil
from contextlib import closing

import pytest

from tests.loads import first_export
from tests.warehouses import Place, load_into, new_duckdb, of_role, run_printed_ddl

ON_EVERY_TARGET = {
    "test_first_load_equals_the_dataset",
    "test_changed_execution_is_replaced_as_a_whole_and_others_are_left_alone",
    "test_load_that_dies_leaves_nothing_behind_and_the_next_one_makes_it_equal",
}
"""The laws that a quick run tries on each target, and not on DuckDB alone."""


def pytest_generate_tests(metafunc):
    if metafunc.module.__name__.endswith("test_laws") and "empty" in metafunc.fixturenames:
        marks = () if metafunc.function.__name__ in ON_EVERY_TARGET else pytest.mark.slow
        others = [pytest.param(name, marks=marks) for name in ("postgresql", "delta")]
        metafunc.parametrize("empty", ["duckdb", *others], indirect=True)


@pytest.fixture
def in_delta(tmp_path):
    lakes = pytest.importorskip("tests.lakes")  # the environments of the emulators do not have it
    return lakes.Lake(tmp_path / "lake")


@pytest.fixture
def empty(request):
    """A place where no table is yet, in one of the targets that run here."""
    return request.getfixturevalue(f"in_{request.param}")


@pytest.fixture(scope="session")
def loaded_duckdb(exported, tmp_path_factory):
    """The file of a database with the first export."""
    with closing(new_duckdb(tmp_path_factory.mktemp("loaded"))) as place:
        load_into(place, exported)
    return place.url.removeprefix("duckdb://")


@pytest.fixture
def target(empty, data, loaded_duckdb, tmp_path):
    """The first export, loaded: into DuckDB most of it was already, by another path to it."""
    is_duckdb = empty.url.startswith("duckdb://")
    with closing(Place(f"duckdb://{shutil.copy(loaded_duckdb, tmp_path)}") if is_duckdb else empty) as place:
        load_into(place, data)
        yield place


@pytest.fixture(scope="session")
def loaded_lake(exported, tmp_path_factory):
    lakes = pytest.importorskip("tests.lakes")
    lake = lakes.Lake(tmp_path_factory.mktemp("loaded") / "lake")
    load_into(lake, exported)
    return lake


@pytest.fixture
def lake(in_delta, loaded_lake, data):
    """Delta tables of the first export."""
    shutil.copytree(loaded_lake.folder, in_delta.folder)
    load_into(in_delta, data)
    return in_delta


@pytest.fixture
def prepared(in_postgresql):
    """The place for a role that may make nothing, in tables made and granted as docs/warehouses.md says."""
    in_postgresql.edit("CREATE ROLE {s}_loader", "CREATE ROLE {s}_readers")
    run_printed_ddl(in_postgresql)
    with closing(of_role(in_postgresql, "loader", "GRANT {s}_loader TO {r}")) as place:
        yield place


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    return first_export(tmp_path_factory.mktemp("exported") / "data")


@pytest.fixture
def data(exported, tmp_path):
    """A dataset of its first export."""
    return shutil.copytree(exported, tmp_path / "data")
