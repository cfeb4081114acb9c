"""An S3 server of this machine, in a process of its own, that can be told to be unreliable.

The server is moto's. Before it lies a layer that drops a share of the requests, in each of the
ways in which a network does: before the server has seen them (reset or 503), and after it has done
what they ask, when only the answer is lost. Others are delayed. The layer can also lose certain
answers, shift the clock of the server, and have it ignore conditions. A request for ``/-/faults``
sets all that, and tells how many faults there were.
"""

import json
import random
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import contextmanager
from datetime import timedelta
from email.utils import format_datetime, parsedate_to_datetime
from functools import partial

CONTROL = "/-/faults"
DELAY_SECONDS = 0.2
PATIENCE_SECONDS = 300


class Faults:
    """A WSGI layer that loses requests and answers."""

    def __init__(self, application, seed=0):
        self._application = application
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self._odd = False
        self.told = {"drop": 0.0, "delay": 0.0, "lose": "", "clock": 0.0, "conditions": True}
        self.told |= {"requests": 0, "dropped": 0, "delayed": 0}

    def __call__(self, environ, start_response):
        if environ["PATH_INFO"] == CONTROL:
            return self._control(environ, start_response)
        drop, delay = self._throw()
        if self._is_lost(environ):
            drop = "answer"
        if delay:
            time.sleep(DELAY_SECONDS)
        if drop == "busy":
            start_response("503 Slow Down", [("Content-Length", "0")])
            return []
        if drop == "request":
            raise _ResetError
        if not self.told["conditions"]:
            environ = {k: v for k, v in environ.items() if not k.startswith("HTTP_IF_")}
        answer = self._application(environ, partial(self._start, start_response))
        if drop == "answer":
            raise _ResetError
        return answer

    def _is_lost(self, environ):
        """Lose every other answer to what is put into places that ``lose`` is part of."""
        with self._lock:
            lose, path = self.told["lose"], environ["PATH_INFO"]
            if environ["REQUEST_METHOD"] != "PUT" or not lose or lose not in path:
                return False
            self._odd = not self._odd
            self.told["dropped"] += self._odd
            return self._odd

    def _start(self, start_response, status, headers, *error):
        """Begin an answer, with the times of the server's clock."""
        shift, told = timedelta(seconds=self.told["clock"]), {n.lower(): t for n, t in headers}
        if changed := told.get("last-modified"):
            told["last-modified"] = format_datetime(
                parsedate_to_datetime(changed) + shift, usegmt=True
            )
        return start_response(status, list(told.items()), *error)

    def _throw(self):
        """Throw the dice: what becomes of a request."""
        with self._lock:
            told = self.told
            delay = self._random.random() < told["delay"]
            drop = self._random.random() < told["drop"]
            told["requests"] += 1
            told["delayed"] += delay
            told["dropped"] += drop
            return self._random.choice(["busy", "request", "answer"]) if drop else None, delay

    def _control(self, environ, start_response):
        wanted = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        with self._lock:
            self.told |= json.loads(wanted or "{}")
            content = json.dumps(self.told).encode()
        start_response("200 OK", [("Content-Length", str(len(content)))])
        return [content]


class _ResetError(ConnectionError):
    """The connection is to be broken."""


def serve(port):
    """Serve until the process is ended."""
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Handler(WSGIRequestHandler):
        def log(self, *_):
            pass

        def date_time_string(self, timestamp=None):
            return super().date_time_string(time.time() + application.told["clock"])

        def connection_dropped(self, *_):
            """Break the connection, as a router does: with a reset, not with an end."""
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True

    application = Faults(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", port, application, threaded=True, request_handler=Handler)
    server.shutdown_request = server.close_request
    server.serve_forever()


class Server:
    """A server that runs."""

    def __init__(self, port):
        self.url = f"http://127.0.0.1:{port}"
        self.environment = {
            "AWS_ACCESS_KEY_ID": "popdask-test-key",
            "AWS_SECRET_ACCESS_KEY": "popdask-test-secret",
            "AWS_ENDPOINT_URL": self.url,
            "AWS_REGION": "eu-north-1",
        }

    def faults(self, **wanted):
        """Set ``drop`` and ``delay``, the shares of requests; give what was counted so far."""
        content = json.dumps(wanted).encode() if wanted else None
        with urllib.request.urlopen(self.url + CONTROL, content, timeout=60) as answer:
            return json.load(answer)

    def wait(self):
        """Wait until it answers."""
        end = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                return self.faults()
            except OSError:
                assert time.monotonic() < end, "the server did not start"
                time.sleep(0.1)


@contextmanager
def serving():
    """Start a server, and end it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen([sys.executable, "-m", __name__, str(port)])
    try:
        server = Server(port)
        server.wait()
        yield server
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    serve(int(sys.argv[1]))
