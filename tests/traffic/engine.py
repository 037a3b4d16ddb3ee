"""A container engine's API as far as names go, on a socket of the tests' own."""

from __future__ import annotations

import json
import os
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingUnixStreamServer


class Engine(ThreadingUnixStreamServer):
    """Answers as the API of Docker is documented to, for the containers in `names`, or with these `bytes` to all."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, path: Path, owner: int = 0) -> None:
        self.names: dict[str, str] = {}
        self.asked: list[str] = []
        self.bytes: bytes | None = None
        self.may_answer = threading.Event()
        self.may_answer.set()
        super().__init__(str(path), Answer, bind_and_activate=False)
        self.server_bind()
        os.chown(path, owner, owner)
        os.seteuid(owner)
        try:
            self.server_activate()
        finally:
            os.seteuid(0)
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self.may_answer.set()
        self.shutdown()
        self.server_close()


class Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Engine

    def do_GET(self) -> None:
        engine = self.server
        _, collection, asked, what = self.path.split("/")
        assert (collection, what) == ("containers", "json")
        engine.asked.append(asked)
        engine.may_answer.wait()
        if engine.bytes is not None:
            self.wfile.write(engine.bytes)
            self.close_connection = True
            return
        name = engine.names.get(asked)
        told = {"message": f"No such container: {asked}"} if name is None else {"Id": asked, "Name": name, "Args": []}
        body = json.dumps(told).encode()
        self.send_response(404 if name is None else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self) -> str:
        return "unix"

    def log_message(self, *_: object) -> None:
        """Not on standard error."""
