"""A real S3-compatible server for the tests, and a proxy before it that loses, cuts, refuses and strips on demand."""

import base64
import hmac
import http.client
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread

from etl.files.objects import Objects

BUCKET = "datasets"
KEYS = {"AWS_ACCESS_KEY_ID": "a-key", "AWS_SECRET_ACCESS_KEY": "a-secret"}  # a store of the tests' own knows no others
_CONDITIONS = ("if-match", "if-none-match", "authorization")  # without the last, nobody signed the others


@dataclass(frozen=True)
class Store:
    """A store that listens on loopback, with an empty bucket."""

    endpoint: str

    @property
    def options(self) -> dict[str, str]:
        """As in ``[destination.options]``."""
        return {"endpoint": self.endpoint, "region": "us-east-1"}

    def url(self) -> str:
        """A place in the bucket where nothing is."""
        return f"s3://{BUCKET}/{secrets.token_hex(8)}/data set"


def mirror(url: str, options: dict[str, str], folder: Path) -> None:
    """Make the folder hold what lies at the URL, and nothing else."""
    store = Objects(url, options)
    shutil.rmtree(folder, ignore_errors=True)
    for found in store.list(""):
        target = folder / found.path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(store.get(found.path)[1])


def upload(folder: Path, url: str, options: dict[str, str]) -> None:
    """Put the dataset of the folder at the URL; the lock of a folder is none of a bucket."""
    store = Objects(url, options)
    for path in folder.rglob("*"):
        if path.is_file() and path.name != "lock":
            store.put(path.relative_to(folder).as_posix(), path.read_bytes(), None)


def bucket_settings(url: str, endpoint: str) -> list[str]:
    """The lines of a settings file for a dataset there."""
    return [
        "[destination]", f'path = "{url}"',
        "[destination.options]", f'endpoint = "{endpoint}"', 'region = "us-east-1"',
    ]  # fmt: skip


def free_ports(count: int) -> list[int]:
    with ExitStack() as until_chosen:
        asked = [until_chosen.enter_context(socket.socket()) for _ in range(count)]
        for each in asked:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in asked]


@contextmanager
def seaweed(folder: Path) -> Iterator[Store]:
    """SeaweedFS, which keeps the objects in the folder; what is not signed may do everything, too."""
    everything = ["Admin", "Read", "Write", "List", "Tagging"]
    credentials = {"accessKey": KEYS["AWS_ACCESS_KEY_ID"], "secretKey": KEYS["AWS_SECRET_ACCESS_KEY"]}
    identities = [
        {"name": "tests", "credentials": [credentials], "actions": everything},
        {"name": "anonymous", "actions": everything},
    ]
    (folder / "identities.json").write_text(json.dumps({"identities": identities}))
    flags = [f"{name}.port{kind}" for name in ("s3", "master", "volume", "filer", "admin") for kind in ("", ".grpc")]
    ports = free_ports(len(flags))
    command: list[str | Path] = [
        Path(sys.executable).with_name("weed"), "mini", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
        "-master.telemetry=false", "-admin.ui=false", "-webdav=false", f"-bucket={BUCKET}",
        f"-s3.config={folder}/identities.json", "-s3.port.iceberg=0", "-s3.port.lance=0",
        *(f"-{flag}={port}" for flag, port in zip(flags, ports, strict=True)),
    ]  # fmt: skip
    with _running(command, folder, ports[0]) as endpoint:
        _await_bucket(endpoint, folder / "log")
        yield Store(endpoint)


AZURE_ACCOUNT = "devstoreaccount1"
AZURE_KEYS = {
    # That of every Azurite, as its documentation says.
    "AZURE_STORAGE_ACCOUNT_KEY": "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/"
    "K1SZFPTOtr/KBHBeksoGMGw=="
}


@contextmanager
def azurite(folder: Path) -> Iterator[Store]:
    """Azurite, which speaks Azure's protocol, from npm; with an empty container."""
    subprocess.run(
        ["npm", "install", "--no-audit", "--no-fund", "azurite@3"], cwd=folder, check=True, capture_output=True
    )
    (port,) = free_ports(1)
    command: list[str | Path] = [
        folder / "node_modules" / ".bin" / "azurite-blob", "--inMemoryPersistence", "--skipApiVersionCheck",
        "--disableTelemetry", f"--blobPort={port}",
    ]  # fmt: skip
    with _running(command, folder, port) as endpoint:
        path = f"/{AZURE_ACCOUNT}/{BUCKET}"
        headers = {"x-ms-date": formatdate(usegmt=True), "x-ms-version": "2021-08-06"}
        signed = "".join(f"{name}:{value}\n" for name, value in headers.items())
        text = "PUT" + 12 * "\n" + signed + f"/{AZURE_ACCOUNT}{path}\nrestype:container"
        key = base64.b64decode(AZURE_KEYS["AZURE_STORAGE_ACCOUNT_KEY"])
        signature = base64.b64encode(hmac.digest(key, text.encode(), "sha256")).decode()
        connection = http.client.HTTPConnection(endpoint.removeprefix("http://"))
        connection.request(
            "PUT",
            f"{path}?restype=container",
            headers=headers | {"Authorization": f"SharedKey {AZURE_ACCOUNT}:{signature}", "Content-Length": "0"},
        )
        assert connection.getresponse().status == 201
        connection.close()
        yield Store(f"{endpoint}/{AZURE_ACCOUNT}")


@contextmanager
def _running(command: list[str | Path], folder: Path, port: int) -> Iterator[str]:
    with (folder / "log").open("wb") as log:
        env = {"PATH": os.environ["PATH"], "HOME": str(folder)}
        process = subprocess.Popen(command, cwd=folder, env=env, stdout=log, stderr=log, start_new_session=True)
        try:
            _until(lambda: _listens(port), process, folder / "log")
            yield f"http://127.0.0.1:{port}"
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _until(is_so: Callable[[], bool], process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + 60
    while not is_so():
        assert process.poll() is None, log.read_text(errors="replace")
        assert time.monotonic() < deadline, log.read_text(errors="replace")
        time.sleep(0.05)  # no sign but the answer says that a foreign server is ready


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def _await_bucket(endpoint: str, log: Path) -> None:
    import obstore  # noqa: PLC0415
    from obstore.store import S3Store  # noqa: PLC0415

    store = S3Store(
        BUCKET,
        config={
            "endpoint": endpoint,
            "region": "us-east-1",
            "access_key_id": KEYS["AWS_ACCESS_KEY_ID"],
            "secret_access_key": KEYS["AWS_SECRET_ACCESS_KEY"],
        },
        client_options={"allow_http": True},
    )
    deadline = time.monotonic() + 60
    while True:
        try:
            obstore.put(store, "ready", b"1")
        except obstore.exceptions.BaseError:
            assert time.monotonic() < deadline, log.read_text(errors="replace")[-5000:]
        else:
            return


@dataclass(frozen=True)
class Refused:
    """An answer of the proxy's own, as a store would give it."""

    status: int
    code: str = ""


@dataclass(frozen=True)
class Cut:
    """The connection ends: before the store hears of the request, halfway through it, or before its answer is told."""

    when: str  # "before", "halfway", "after"


IN_CHUNKS = "chunked, with the length of the whole"


@dataclass(frozen=True)
class Edited:
    """The store's own answer as something in front of it makes it: status, content and headers."""

    edit: Callable[[int, bytes, dict[str, str]], tuple[int, bytes, dict[str, str]]]


Verdict = Refused | Cut | Edited | None


@dataclass
class Told:
    """A request as the proxy sees it; ``nth`` counts from 0."""

    nth: int
    method: str
    path: str
    headers: dict[str, str]


def nothing(_request: Told) -> None:
    """Happens."""


@dataclass
class StoreProxy:
    """Passes requests on, after ``before``, which sees each first.

    ``verdicts``, by number, and ``judge`` may let one fail; ``strips_conditions`` makes the store blind to them.
    """

    store: Store
    verdicts: dict[int, Verdict] = field(default_factory=dict)
    judge: Callable[[Told], Verdict] = lambda _request: None
    before: Callable[[Told], None] = nothing
    after: Callable[[Told], None] = nothing
    strips_conditions: bool = False
    requests: list[Told] = field(default_factory=list)
    endpoint: str = ""

    @property
    def options(self) -> dict[str, str]:
        """As in ``[destination.options]``."""
        return self.store.options | {"endpoint": self.endpoint}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else each answer waits 40 ms for the reader of its headers
    server: "_Server"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        told = self.server.note(self.command, self.path, {name.lower(): each for name, each in self.headers.items()})
        proxy = self.server.proxy
        proxy.before(told)
        verdict = proxy.verdicts.get(told.nth) or proxy.judge(told)
        if isinstance(verdict, Refused):
            self._answer(verdict.status, f"<Error><Code>{verdict.code}</Code></Error>".encode(), {})
        elif verdict == Cut("before"):
            self._hang_up()
        elif verdict == Cut("halfway"):
            self._send_on(told, body[: len(body) // 2]).close()
            self._hang_up()
        else:
            connection = self._send_on(told, body)
            answer = connection.getresponse()
            content = answer.read()
            connection.close()
            proxy.after(told)
            told_back = answer.status, content, dict(answer.getheaders())
            if verdict == Cut("after"):
                self._hang_up()
            else:
                self._answer(*(verdict.edit(*told_back) if isinstance(verdict, Edited) else told_back))

    do_PUT = do_POST = do_DELETE = do_HEAD = do_GET  # noqa: N815 the names that the base class calls

    def _send_on(self, told: Told, body: bytes) -> http.client.HTTPConnection:
        proxy = self.server.proxy
        connection = http.client.HTTPConnection(proxy.store.endpoint.removeprefix("http://"), timeout=30)
        connection.putrequest(told.method, told.path, skip_host=True, skip_accept_encoding=True)
        for name, value in told.headers.items():
            if not (proxy.strips_conditions and name in _CONDITIONS):
                connection.putheader(name, value)
        connection.endheaders()
        connection.send(body)
        return connection

    def _answer(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response_only(status)
        is_in_chunks = headers.get("Transfer-Encoding") == IN_CHUNKS
        if is_in_chunks:
            self.send_header("Transfer-Encoding", "chunked")
            content = b"%x\r\n%b\r\n0\r\n\r\n" % (len(content), content)
        for name, value in headers.items():
            if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                self.send_header(name, value)
        length = headers.get("Content-Length") if self.command == "HEAD" or is_in_chunks else None
        self.send_header("Content-Length", length or str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _hang_up(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, proxy: StoreProxy) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.proxy = proxy
        self._counting = Lock()

    def note(self, method: str, path: str, headers: dict[str, str]) -> Told:
        with self._counting:
            told = Told(len(self.proxy.requests), method, path, headers)
            self.proxy.requests.append(told)
        return told

    def handle_error(self, *_: object) -> None:
        pass  # a client that was killed, or that the proxy hung up on


@contextmanager
def proxied(store: Store) -> Iterator[StoreProxy]:
    """The store behind a proxy of its own."""
    proxy = StoreProxy(store)
    with _Server(proxy) as server:
        proxy.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield proxy
        finally:
            server.shutdown()
            thread.join()
