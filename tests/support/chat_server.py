"""A real HTTP server that speaks OpenAI's chat completions, with scripted answers and faults."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ANGER = '{"labels": ["anger"]}'
USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}


class Answer(dict[str, Any]):
    """One answer of the server: status, body (bytes or JSON), headers, and the delay in seconds."""


def says(text: str | None, usage: Any = USAGE, **more: Any) -> Answer:
    message = {"role": "assistant", "content": text}
    body = {"object": "chat.completion", "choices": [{"index": 0, "message": message}]}
    return Answer(body=body | ({} if usage is None else {"usage": usage}), **more)


def fails(status: int, message: str = "no", **headers: str) -> Answer:
    return Answer(status=status, body={"error": {"message": message}}, headers=headers)


class Script:
    """A real HTTP server with scripted answers.

    Attributes:
        answer: called with the sentence, the number of requests for it so far (0 first) and the messages.
        asked: sentences in the order of their requests.
        headers: headers of the last request.
        most: highest number of requests in flight.
    """

    def __init__(self) -> None:
        self.answer: Callable[[str, int, list[dict[str, str]]], Answer] = lambda *_: says(ANGER)
        self.asked: list[str] = []
        self.bodies: list[dict[str, Any]] = []
        self.headers: dict[str, str] = {}
        self.most = self._now = 0
        self._guard = threading.Lock()
        script = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # send head and body in one packet: two would delay each other

            def do_POST(self) -> None:
                script.serve(self)

            do_GET = do_POST

            def log_message(self, *_: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: Any) -> None:
                pass  # in some tests clients disconnect on purpose

        self.server = Server(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/v1"

    def serve(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers.get("Content-Length", 0))) or b"{}")
        sentence = body["messages"][:2][-1]["content"] if body else ""
        with self._guard:
            before = self.asked.count(sentence)
            self.asked.append(sentence)
            self.bodies.append(body)
            self.headers = dict(handler.headers)
            self._now += 1
            self.most = max(self.most, self._now)
        answer = self.answer(sentence, before, body.get("messages", []))
        time.sleep(answer.get("seconds", 0.0))
        with self._guard:
            self._now -= 1
        content = answer.get("body", b"")
        content = content if isinstance(content, bytes) else json.dumps(content).encode()
        handler.send_response(answer.get("status", 200))
        for name, value in {"Content-Type": "application/json", **answer.get("headers", {})}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
