"""A server of files on this machine, and the faults of those that publish rasters.

It answers like Apache: validators, ranges, If-Range. A test can have it cut answers in the middle,
ignore ranges, answer 503, or tell checksums, and reads what it was asked and how much it sent.
"""

import hashlib
import re
import socket
import sys
import threading
from base64 import b64encode
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Site:
    """Files by path, how the server misbehaves, and what it saw."""

    files: dict[str, bytes] = field(default_factory=dict)
    #: Bytes after which the next answers are cut, one for each.
    cuts: list[int] = field(default_factory=list)
    #: Statuses that the next answers have instead of a file.
    statuses: list[int] = field(default_factory=list)
    ranges: bool = True
    validators: bool = True
    lengths: bool = True
    digest: str | None = None
    wait: threading.Event | None = None
    #: Where the next answers send to instead.
    redirects: list[str] = field(default_factory=list)
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    sent: int = 0
    url: str = ""

    def add(self, path, content):
        self.files[f"/{path}"] = content

    def asked(self, method="GET"):
        """Paths and ranges that were asked for."""
        return [(path, span) for verb, path, span in self.requests if verb == method]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def site(self):
        return self.server.site

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self._answer(send=False)

    def do_GET(self):
        self._answer(send=True)

    def _answer(self, send):
        site = self.site
        site.requests.append((self.command, self.path, self.headers.get("Range", "")))
        if site.wait and send:
            site.wait.wait(30)
        if site.redirects:
            return self._say(302, site.redirects.pop(0))
        body = site.files.get(self.path)
        if send and site.statuses:
            return self._say(site.statuses.pop(0))
        if body is None:
            return self._say(404)
        etag = f'"{hashlib.md5(body).hexdigest()[:12]}"'
        start = self._start(body, etag)
        if start is None:
            return self._say(416)
        self.send_response(206 if start else 200)
        self._headers(body, etag, start)
        self.end_headers()
        if send:
            self._send(body[start:])
        return None

    def _start(self, body, etag):
        """First byte to send; None where there is none such."""
        span = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if not (span and self.site.ranges) or self.headers.get("If-Range", etag) != etag:
            return 0
        return int(span[1]) if int(span[1]) < len(body) else None

    def _headers(self, body, etag, start):
        site = self.site
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        if site.validators:
            self.send_header("ETag", etag)
        if site.digest == "Repr-Digest":
            digest = b64encode(hashlib.sha256(body).digest()).decode()
            self.send_header("Repr-Digest", f"sha-256=:{digest}:")
        elif site.digest == "Content-MD5" and not start:
            self.send_header("Content-MD5", b64encode(hashlib.md5(body).digest()).decode())
        elif site.digest == "wrong":
            digest = b64encode(hashlib.sha256(b"another file").digest()).decode()
            self.send_header("Repr-Digest", f"sha-256=:{digest}:")
        if site.lengths:
            self.send_header("Content-Length", str(len(body) - start))
        else:
            self.send_header("Transfer-Encoding", "chunked")

    def _send(self, body):
        cut = self.site.cuts.pop(0) if self.site.cuts else None
        part = body if cut is None else body[:cut]
        if self.site.lengths:
            self.wfile.write(part)
        else:
            self.wfile.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
            self.wfile.write(b"0\r\n\r\n" if cut is None else b"")
        self.wfile.flush()
        self.site.sent += len(part)
        if cut is not None:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

    def _say(self, status, place=None):
        self.send_response(status)
        if place:
            self.send_header("Location", place)
        self.send_header("Content-Length", "0")
        self.end_headers()


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # no thread answers, or complains, after its test

    def handle_error(self, request, client_address):
        """Pass over clients that leave in the middle, which some tests do on purpose."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


@contextmanager
def serving():
    """A server of an empty site, as long as the block runs."""
    server = _Server(("127.0.0.1", 0), _Handler)
    server.site = Site(url=f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server.site
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
