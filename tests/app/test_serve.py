"""The server as a process: what it says, and how it ends."""

import base64
import http.client
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread

import pytest

from exporter.app.config import Listen
from exporter.app.serve import address, bind
from exporter.ingest.source import Unavailable
from tests.app.commands import ROOT

READ, WRITE = "r3ad-token-of-the-page", "wr1te-token-of-the-model"


@dataclass
class Server:
    """A running exporter and everything it has said."""

    process: subprocess.Popen[str]
    port: int = 0
    said: list[str] = field(default_factory=list)

    def ask(self, path: str, authorization: str = "", body: bytes | None = None) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            headers = {"authorization": authorization} if authorization else {}
            connection.request("GET" if body is None else "POST", path, body, headers)
            response = connection.getresponse()
            response.read()
            return response.status
        finally:
            connection.close()

    def end(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)


@contextmanager
def serving(folder: Path, **config: object) -> Iterator[Server]:
    path = folder / "c.yaml"
    path.write_text(json.dumps({"listen": "127.0.0.1:0", **config}))
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "exporter", "run", "--config", str(path)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    server = Server(process)
    assert process.stdout is not None
    for line in process.stdout:
        server.said.append(line)
        if "listening on http://127.0.0.1:" in line:
            server.port = int(line.rstrip("/\n").rpartition(":")[2])
            break
    reader = Thread(target=server.said.extend, args=(process.stdout,))
    reader.start()
    try:
        yield server
    finally:
        process.kill()
        process.wait()
        reader.join()
        process.stdout.close()


def test_tokens_are_asked_for_and_never_said(tmp_path: Path):
    (tmp_path / "read").write_text(READ)
    (tmp_path / "write").write_text(WRITE)
    auth = {"read_token_file": "read", "write_token_file": "write"}
    wrong = f"{WRITE}-nearly"
    with serving(tmp_path, auth=auth, sources=[{"type": "http", "log_values": True}]) as server:
        assert server.ask("/metrics") == 401
        for token in (READ, WRITE, wrong):
            basic = base64.b64encode(f"me:{token}".encode()).decode()
            for authorization in (f"Bearer {token}", f"Basic {basic}", f"Digest {token}", token):
                offered = authorization.startswith(("Bearer", "Basic"))
                assert server.ask("/metrics", authorization) == (200 if offered and token == READ else 401)
                posted = server.ask("/v1/events", authorization, b'{"model":"\x00"')
                assert posted == (202 if offered and token == WRITE else 401)
        assert server.ask("/v1/events" + "/x" * 5000, f"Bearer {WRITE}", b"x") in (404, 414)
        assert server.end() == 0
    said = "".join(server.said)
    assert "event rejected, malformed_json" in said
    for token in (READ, WRITE, wrong):
        assert token not in said
        assert base64.b64encode(f"me:{token}".encode()).decode() not in said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_order(tmp_path: Path, number: signal.Signals):
    with serving(tmp_path) as server:
        assert server.ask("/healthz") == 200
        server.process.send_signal(number)
        assert server.process.wait(20) == 0
    assert "Traceback" not in "".join(server.said)


def test_a_source_that_cannot_be_read_is_said_in_one_line_and_shown_by_readiness(tmp_path: Path):
    with serving(tmp_path, sources=[{"type": "file", "path": "none.jsonl"}, {"type": "http"}]) as server:
        assert server.ask("/v1/events", body=b"{}") == 202
        assert server.ask("/readyz") == 503
        assert server.ask("/healthz") == 200
        assert server.end() == 0
    (line,) = [line for line in server.said if "none.jsonl" in line]
    assert f"source file: cannot read {tmp_path}/none.jsonl: No such file or directory" in line


def test_a_connection_that_speaks_something_else_harms_nobody(tmp_path: Path):
    with serving(tmp_path) as server:
        for noise in (b"\x16\x03\x01\x02\x00", b"GET / HTTP/9.9\r\n\r\n", b"\r\n" * 1000, b"POST / HTTP/1.1\r\n"):
            with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
                connection.sendall(noise)
        assert server.ask("/v1/events", body=b"{}") == 202
        assert server.end() == 0
    assert "Traceback" not in "".join(server.said)


class TestBind:
    def test_any_free_port_and_its_address(self):
        with bind(Listen("127.0.0.1", 0)) as bound:
            assert address(bound) == f"http://127.0.0.1:{bound.getsockname()[1]}/"
        with bind(Listen("0.0.0.0", 0)) as bound:
            assert address(bound).startswith("http://127.0.0.1:")

    def test_an_address_that_cannot_be_had_is_named(self):
        with bind(Listen("127.0.0.1", 0)) as bound:
            port = bound.getsockname()[1]
            with pytest.raises(Unavailable, match=f"listen 127.0.0.1:{port}: Address already in use"):
                bind(Listen("127.0.0.1", port))
        with pytest.raises(Unavailable, match=r"listen no\.such\.host\.invalid:1: "):
            bind(Listen("no.such.host.invalid", 1))
