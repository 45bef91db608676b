"""What holds for every test."""

import gc
import resource
from contextlib import closing, nullcontext

import pytest
from hypothesis import settings

from etl.extract import client
from etl.files.local import LocalFiles
from tests.e2e.demo_dataset import make_demo
from tests.stores import KEYS, proxied, seaweed
from tests.warehouses import (
    Place,
    new_duckdb,
    new_postgresql,
    pgbouncer,
    pgbouncer_program,
    postgresql,
    postgresql_folder,
    replica,
)

# A busy machine makes any example slow: no law is about time.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")

# An export looks at each file that its process may open. Some machines let a process open far more than a shell does.
resource.setrlimit(resource.RLIMIT_NOFILE, (1024, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))


def pytest_collection_finish() -> None:
    """What the tests import lives until they end: the search for garbage need not go through it again and again."""
    gc.freeze()


@pytest.fixture(autouse=True)
def quick_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits between two tries are tested by what they are asked for, not by waiting."""
    monkeypatch.setattr(client, "_BACKOFF_MAX_SECONDS", 0.002)


@pytest.fixture
def files(tmp_path):
    """A folder that is ready for a dataset."""
    files = LocalFiles(tmp_path / "data")
    files.prepare()
    return files


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The dataset of the demo, as the documents show it, in a folder of the module's own."""
    data = tmp_path_factory.mktemp("demo") / "data"
    make_demo(data)
    return data


@pytest.fixture(scope="session")
def seaweed_store(tmp_path_factory):
    with seaweed(tmp_path_factory.mktemp("seaweed")) as running:
        yield running


@pytest.fixture(scope="session")
def postgresql_if_installed():
    """The URL of a server, empty where PostgreSQL is not installed."""
    with postgresql() if postgresql_folder() else nullcontext("") as url:
        yield url


@pytest.fixture
def in_duckdb(tmp_path):
    with closing(new_duckdb(tmp_path)) as place:
        yield place


@pytest.fixture
def in_postgresql(postgresql_if_installed):
    if not postgresql_if_installed:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    place = new_postgresql(postgresql_if_installed)
    yield place
    place.drop()


@pytest.fixture(scope="session")
def pooler_if_installed(postgresql_if_installed):
    """The URL of a pooler before that server, empty where PgBouncer is not installed."""
    with (
        pgbouncer(postgresql_if_installed)
        if postgresql_if_installed and pgbouncer_program()
        else nullcontext("") as url
    ):
        yield url


@pytest.fixture
def pooled(in_postgresql, pooler_if_installed):
    """The same place behind PgBouncer, which gives each transaction one of two sessions of the server."""
    if not pooler_if_installed:
        pytest.skip("PgBouncer is not installed: apt-get install pgbouncer")
    with closing(Place(pooler_if_installed, in_postgresql.namespace)) as place:
        yield place


@pytest.fixture
def on_replica(in_postgresql):
    """The same place in a server that follows the other one."""
    with replica(in_postgresql.url) as url, closing(Place(url, in_postgresql.namespace)) as place:
        yield place


@pytest.fixture(params=["duckdb", "postgresql"])
def warehouse(request):
    """A place where no table is yet, in each of the engines."""
    return request.getfixturevalue(f"in_{request.param}")


@pytest.fixture
def keys(monkeypatch):
    """Where a user has them."""
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def proxy(seaweed_store, keys):
    """The store behind a proxy."""
    with proxied(seaweed_store) as running:
        yield running


@pytest.fixture
def blind_store(proxy):
    """A store that ignores conditions."""
    proxy.strips_conditions = True
    return proxy
