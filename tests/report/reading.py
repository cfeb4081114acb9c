"""What stands in a report, read as a browser reads it."""

import base64
import json
import zlib
from html.parser import HTMLParser

import numpy as np


def unpack(text):
    """The bytes that `popdask.report.plots.pack` has packed."""
    return zlib.decompress(base64.b64decode(text))


class Page(HTMLParser):
    """The elements of a page: their tags and attributes, and what stands in them."""

    def __init__(self, text):
        super().__init__()
        self.elements, self._open = [], []
        self.feed(text)
        self.by_id = {found["id"]: found for found in self.elements if "id" in found}

    def handle_starttag(self, tag, attributes):
        found = {**dict(attributes), "tag": tag, "text": ""}
        self.elements.append(found)
        if tag not in ("meta", "link", "img", "input", "br", "i"):
            self._open.append(found)

    def handle_endtag(self, tag):
        while self._open and self._open.pop()["tag"] != tag:
            pass

    def handle_data(self, data):
        for found in self._open[-1:]:
            found["text"] += data

    def texts(self, tag):
        return [found["text"] for found in self.elements if found["tag"] == tag]

    @property
    def setup(self):
        return json.loads(self.by_id["setup"]["text"])

    @property
    def tables(self):
        return json.loads(unpack(self.by_id["tables"]["text"]))

    def frame(self, layer, position):
        """The codes of a frame (row, column), and what is told of them."""
        told = self.setup["frames"][layer][position]
        codes = np.frombuffer(unpack(self.by_id[f"{layer}-{position}"]["text"]), told["dtype"])
        return codes.reshape(self.setup["map"]["rows"], self.setup["map"]["cols"]), told


def amounts(codes, told):
    """The amounts that codes stand for, NaN = no data."""
    some = told["low"] * (told["high"] / told["low"]) ** ((codes.astype(float) - 2) / 253)
    return np.where(codes == 0, np.nan, np.where(codes == 1, 0.0, some))
