"""A report in a browser: opened from disk, and watched for complaints and requests."""

import json
import time
from contextlib import contextmanager

DESK = {"viewport": {"width": 1280, "height": 900}}
NIGHT = {**DESK, "color_scheme": "dark"}
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
TOLD = ("error", "warning")
PATIENCE = 60_000  # milliseconds; a busy machine is slow
#: Empty windows, by browser and kind: a process of its own costs more than what it shows. One in
#: which a test has failed is not used again.
LEFT = {}


@contextmanager
def opened(browser, path, **how):
    """The page, drawn; at the end, it has complained of nothing and asked for no other file."""
    kept = browser, json.dumps(how, sort_keys=True)
    page = LEFT.pop(kept, None) or browser.new_context(**how).new_page()
    page.set_default_timeout(PATIENCE)
    complaints, asked = [], []
    heard = {
        "pageerror": lambda error: complaints.append(str(error)),
        "console": lambda said: complaints.append(said.text) if said.type in TOLD else None,
        "request": lambda request: asked.append(request.url),
    }
    for event, hear in heard.items():
        page.on(event, hear)
    page.goto(path.as_uri())
    page.wait_for_selector("body[data-ready]")
    yield page
    assert not complaints, complaints
    elsewhere = [url for url in asked if not url.startswith(("data:", "blob:"))]
    assert elsewhere == [path.as_uri()]
    for event, hear in heard.items():
        page.remove_listener(event, hear)
    page.mouse.move(0, 0)
    page.goto("about:blank")
    LEFT[kept] = page


def choose(page, layer):
    """Switch to a layer as one does, by its words, once they have stopped moving."""
    page.locator(f".layers label:has(input[value={layer}])").click()


def redrawn(page, seen):
    """The picture of the map, as soon as it stays and is another than those seen."""
    end, before = time.monotonic() + PATIENCE / 1000, None
    while (picture := page.locator("#plot-map").screenshot()) != before or picture in seen:
        assert time.monotonic() < end, "the map stays as it was, or does not come to rest"
        page.wait_for_timeout(100)
        before = picture
    return picture


def findings(axe, page):
    """What axe says of a page with all that can be opened open: rule and element."""
    page.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
    # Of thousands of rows it looks at ten of a table, and at all that are made otherwise.
    page.evaluate("""document.querySelectorAll('tbody').forEach((body) => {
      const look = (part) => [part.tagName, part.className, part.getAttribute('style')];
      const seen = new Set();
      [...body.rows].forEach((row, place) => {
        const made = JSON.stringify([row, ...row.querySelectorAll('*')].map(look));
        if (place >= 10 && seen.has(made)) row.remove();
        seen.add(made);
      });
    })""")
    told = axe.run(page, options={"resultTypes": ["violations"]}).response  # of others, how many
    assert len(told["passes"]) > 15
    return [(one["id"], node["html"][:120]) for one in told["violations"] for node in one["nodes"]]


def without_table(page):
    """The pictures that have no table beside them."""
    return page.evaluate("""() => [...document.querySelectorAll('#plot-map, .plot, figure')]
      .filter((picture) => {
        const around = picture.closest('figure, aside, .beside > div, .alone > div, section');
        return around.querySelectorAll('details table tbody tr').length === 0;
      }).map((picture) => picture.id || picture.textContent.slice(0, 60))""")
