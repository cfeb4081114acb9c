"""Google's own client against a server of this machine: what is sent, and what becomes of answers.

The server knows as much of Earth Engine as the client asks for: its description, four functions,
and pixels. It is not Google: that Google gives the right people is not tested.
"""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from rasterio.transform import Affine

import popdask
from popdask.datasets import FetchError, fetch_gpw
from popdask.datasets.gpw import earth_engine
from popdask.errors import InputError
from tests.fetch.rasters import raster

ee = pytest.importorskip("ee", reason="earthengine-api is not installed")
RefreshError = pytest.importorskip("google.auth.exceptions").RefreshError

OSLO = (10.0, 59.5, 11.0, 60.0)
FUNCTIONS = {
    "Image.load": {"id": "String"},
    "Image.select": {"input": "Image", "bandSelectors": "List"},
    "Image.toFloat": {"value": "Image"},
    "Image.unmask": {"input": "Image", "value": "Image", "sameFootprint": "Boolean"},
    "Image.constant": {"value": "Object"},
}


def algorithms():
    return [
        {
            "name": f"algorithms/{name}",
            "returnType": "Image",
            "arguments": [{"argumentName": key, "type": kind} for key, kind in arguments.items()],
        }
        for name, arguments in FUNCTIONS.items()
    ]


def method(name, verb, path, parent):
    where = {"type": "string", "required": True, "location": "path", "pattern": "^projects/[^/]+$"}
    told = {"id": name, "path": path, "httpMethod": verb, "response": {"$ref": "Answer"}}
    told |= {"parameters": {parent: where}, "parameterOrder": [parent]}
    return told | ({"request": {"$ref": "Answer"}} if verb == "POST" else {})


def description(url):
    """The part of Earth Engine's discovery document that is needed."""
    methods = {
        "algorithms": {"list": method("list", "GET", "v1/{+parent}/algorithms", "parent")},
        "image": {
            "computePixels": method(
                "pixels", "POST", "v1/{+project}/image:computePixels", "project"
            )
        },
    }
    resources = {name: {"methods": told} for name, told in methods.items()}
    return {
        "name": "earthengine", "version": "v1", "rootUrl": f"{url}/", "servicePath": "",
        "schemas": {"Answer": {"id": "Answer", "type": "object", "properties": {}}},
        "parameters": {"prettyPrint": {"type": "boolean", "location": "query"}},
        "resources": {"projects": {"resources": resources}},
    }  # fmt: skip


def picture(asked):
    """The GeoTIFF of a request."""
    size, grid = asked["grid"]["dimensions"], asked["grid"]["affineTransform"]
    transform = Affine(
        grid["scaleX"], grid["shearX"], grid["translateX"],
        grid["shearY"], grid["scaleY"], grid["translateY"],
    )  # fmt: skip
    values = np.arange(size["width"] * size["height"]).reshape(size["height"], size["width"])
    return raster(values, transform, asked["grid"]["crsCode"], None)


class _Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        discovery = self.path.startswith("/$discovery")
        told = description(self.server.url) if discovery else {"algorithms": algorithms()}
        self._say(200, json.dumps(told).encode())

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.path.split("?")[0], asked))
        if self.server.refuse:
            error = {"error": {"code": 403, "message": "Not signed up.\nSee the guide."}}
            return self._say(403, json.dumps(error).encode())
        return self._say(200, picture(asked))

    def _say(self, status, body):
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def serving():
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        server.url = f"http://127.0.0.1:{server.server_port}"
        server.asked, server.refuse = [], False
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def signed_in(monkeypatch):
    """Credentials, as `earthengine authenticate` leaves them, that Google is not asked about."""
    from google.auth.credentials import AnonymousCredentials

    monkeypatch.setattr(ee.data, "get_persistent_credentials", AnonymousCredentials)
    yield
    ee.Reset()


def test_googles_client_sends_the_request_and_the_answer_is_a_frame(signed_in, tmp_path):
    with serving() as server:
        pixels = earth_engine("someone", url=server.url)
        fetched = fetch_gpw([2000, 2005], tmp_path, OSLO, pixels=pixels)
    (path, asked), (_, later) = server.asked
    assert path == "/v1/projects/someone/image:computePixels"
    assert asked["fileFormat"] == "GEO_TIFF" and asked["bandIds"] == ["population_count"]
    assert asked["grid"]["dimensions"] == {"width": 120, "height": 60}
    graph = json.dumps(asked["expression"])
    name = "CIESIN/GPWv411/GPW_Population_Count/gpw_v4_population_count_rev11_2000_30_sec"
    assert name in graph and name.replace("2000", "2005") in json.dumps(later["expression"])
    order = [graph.index(call) for call in ("unmask", "toFloat", "select", "load")]
    assert order == sorted(order), "unmask is the last that is done"
    population = popdask.open_frames(fetched.pattern).population
    assert population.shape == (2, 60, 120)
    assert float(population[0, 59, 119]) == 7199.0


def test_a_refusal_is_one_sentence(signed_in, tmp_path):
    with serving() as server:
        server.refuse = True
        pixels = earth_engine("someone", url=server.url)
        with pytest.raises(FetchError, match=r"refuses CIESIN/.*_30_sec \(Not signed up\)\.$"):
            fetch_gpw(2000, tmp_path, OSLO, pixels=pixels)
    assert not list(tmp_path.glob("*.tif"))


def test_an_account_without_a_project_is_asked_for_one(signed_in):
    with pytest.raises(
        InputError, match=r"does not let this account in \(.*; give a Google Cloud p"
    ):
        earth_engine()


@pytest.mark.parametrize(
    ("trouble", "kind", "said"),
    [
        (ConnectionError("no route"), FetchError, r"cannot be reached \(no route\)"),
        (RefreshError("revoked"), InputError, r"credentials .* \(revoked\); sign in again with"),
    ],
)
def test_what_keeps_google_from_answering_is_told(signed_in, monkeypatch, trouble, kind, said):
    def fail(*_, **__):
        raise trouble

    monkeypatch.setattr(ee, "Initialize", fail)
    with pytest.raises(kind, match=said):
        earth_engine("someone")
