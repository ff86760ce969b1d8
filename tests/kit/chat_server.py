"""A small HTTP server that speaks the chat protocol of OpenAI, on loopback, with faults on request."""

import json
import socket
import struct
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from omegaconf import OmegaConf

from dlma.app import conf_dir
from dlma.config.build import build


class ChatServer(ThreadingHTTPServer):
    """Answers each request with `answer(body, number)`: a text, or a fault such as ("status", 429).

    asked: the bodies of all requests; headers: their headers; most: the largest number under way at a time
    """

    daemon_threads = True

    def __init__(self, answer):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer = answer
        self.asked, self.headers, self.times = [], [], []
        self.lock = threading.Lock()
        self.under_way = self.most = 0

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def handle_error(self, request, client_address):
        """A client that hung up is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        """Silent."""

    def do_POST(self):
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            server.asked.append(body)
            server.headers.append(dict(self.headers))
            server.times.append(time.monotonic())
            number = len(server.asked)
            server.under_way += 1
            server.most = max(server.most, server.under_way)
        try:
            self.give(server.answer(body, number), body)
        finally:
            with server.lock:
                server.under_way -= 1

    def give(self, found, body):
        if isinstance(found, str):
            return self.send(200, _completion(found, body))
        kind, *rest = found
        if kind == "status":
            return self.send(rest[0], {"error": {"message": "planted"}}, rest[1] if len(rest) > 1 else {})
        if kind == "refused":
            return self.send(*rest)
        if kind == "slow":
            time.sleep(rest[0])
            return self.send(200, _completion(rest[1], body))
        if kind == "truncated":
            half = json.dumps(_completion("never seen", body)).encode()[:40]
            return self.send_bytes(200, half)
        if kind == "schema":
            return self.send(200, rest[0])
        assert kind == "reset"
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        return self.connection.close()

    def send(self, status, value, headers=()):
        self.send_bytes(status, json.dumps(value).encode(), headers)

    def send_bytes(self, status, data, headers=()):
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        for name, value in dict(headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)


def _completion(text, body):
    return {
        "id": "c", "object": "chat.completion", "created": 0, "model": f"{body['model']}-served",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110},
    }  # fmt: skip


@contextmanager
def serving(answer):
    """A server for the length of the block."""
    server = ChatServer(answer)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def verdict(word):
    return json.dumps({"reason": "because", "verdict": word})


def shown(body):
    """The two answers that a judge of conf/judges/rubric was shown."""
    text = next(m["content"] for m in body["messages"] if m["role"] == "user")
    return [text.split(f"[answer {name}]\n")[1].split(f"\n[end of answer {name}]")[0] for name in "AB"]


def shorter(body, number=0):
    """A judge that prefers the shorter answer."""
    first, second = map(len, shown(body))
    return verdict("tie" if first == second else "A" if first < second else "B")


def shipped(name):
    """A rubric as conf/judges/rubric has it."""
    folder = conf_dir() / "judges" / "rubric"
    own, base = (OmegaConf.load(folder / f"{n}.yaml") for n in (name, "harmless"))
    return build({key: value for key, value in OmegaConf.merge(base, own).items() if key != "defaults"})
