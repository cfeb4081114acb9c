"""The documentation builds without warnings, is complete, and its examples run."""

import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from html import unescape
from html.parser import HTMLParser
from importlib import import_module
from pathlib import Path
from urllib.parse import unquote, urlsplit

import geopandas as gpd
import numpy as np
import pyarrow.parquet
import pytest
import shapely
import typer
from odc.geo.xr import wrap_xr
from sphinx.util.inventory import InventoryFile

import popdask
from popdask.cli.commands import app
from popdask.config import CommunitiesJob, load_job
from popdask.config.load import JOBS, ClusterFile, load_spec, table_of
from popdask.workflow import communities, population, settlements
from popdask.workflow.layers import MOVEMENT, SURE
from tests.pipelines import dots, small, test_intervals, test_seams
from tests.report import test_settlements

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "docs" / "_ext"))
api_reference = import_module("api_reference")
PAGES = sorted((ROOT / "docs").rglob("*.md"))


class Page(HTMLParser):
    """Collects what a page can be linked by, and what it links to."""

    def __init__(self, path):
        super().__init__()
        self.ids, self.links, self.text = set(), set(), path.read_text(encoding="utf-8")
        self.feed(self.text)

    def handle_starttag(self, tag, attributes):
        named = dict(attributes)
        self.ids |= {named["id"]} if "id" in named else set()
        self.links |= {named[key] for key in ("href", "src") if named.get(key)}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The pages as they are built, without the caches of an earlier build."""
    folder = tmp_path_factory.mktemp("site")
    places = [str(ROOT / "docs"), str(folder / "html"), "-d", str(folder / "doctrees")]
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-n", *places]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return folder / "html"


@pytest.fixture(scope="module")
def pages(site):
    found = [path for path in site.rglob("*.html") if "_static" not in path.parts]
    return {path.resolve(): Page(path) for path in found}


def settings_of(model, *above):
    """Names of the settings of a model and of the tables within it, with what they mean."""
    for key, field in model.model_fields.items():
        inner = table_of(field)
        if inner is None:
            yield (*above, field.alias or key), field.description or ""
        else:
            yield from settings_of(inner, *above, key)


#: What the reference calls the kinds of files.
FILES = {**JOBS, "cluster": ClusterFile}


@pytest.mark.parametrize("file", FILES)
def test_every_setting_is_in_the_reference_with_its_meaning(site, file):
    reference = "".join(path.read_text("utf-8") for path in (site / "reference").glob("*.html"))
    rows = [row for row in re.findall(r"<tr.*?</tr>", reference, re.DOTALL) if 'id="' in row]
    by_name = {re.search(r'<code[^>]* id="([^"]+)"', row)[1]: row for row in rows}
    # A table that another file has too is a row with a link to where it is described.
    same = {name: re.search(r'href="[^"]*#([^"]+)"', row) for name, row in by_name.items()}
    told = list(settings_of(FILES[file], file))
    assert told
    for (*tables, key), meaning in told:
        table = "-".join(tables)
        described = same[table][1] if same.get(table) else table
        row = by_name[f"{described}-{key}".replace("_", "-")]
        assert plain(meaning.replace("``", "")) in plain(row), (table, key)


def plain(text):
    """Words alone, without tags, and quotes as they are typed."""
    text = unescape(re.sub(r"<[^>]*>", "", text))
    for shown, typed in {"’": "'", "“": '"', "”": '"', "…": "..."}.items():
        text = text.replace(shown, typed)
    return " ".join(text.split())


def test_every_command_is_in_the_reference(site):
    told = plain((site / "reference" / "commands.html").read_text(encoding="utf-8"))
    commands = list(command_names(typer.main.get_command(app)))
    assert "run" in commands
    assert not [name for name in commands if f"$ popdask {name}" not in told]


def command_names(group, *above):
    for name, command in group.commands.items():
        yield " ".join((*above, name))
        if hasattr(command, "commands"):
            yield from command_names(command, *above, name)


def test_every_public_name_has_a_place_that_can_be_linked(site):
    with (site / "objects.inv").open("rb") as file:
        inventory = InventoryFile.load(file, "", lambda base, path: path)
    known = {name for kind, names in inventory.items() if kind.startswith("py:") for name in names}
    homes = {f"{popdask._HOME_OF[name]}.{name}" for name in popdask.__all__ if name[0] != "_"}
    assert homes and not homes - known


def test_the_reference_lists_public_names_alone(site):
    with (site / "objects.inv").open("rb") as file:
        inventory = InventoryFile.load(file, "", lambda base, path: path)
    listed = {name for kind in ("py:function", "py:class") for name in inventory[kind]}
    private = [full for full in listed if home_of(full) not in api_reference.public()]
    assert len(listed) > 100 and not private


def home_of(full):
    """The module of what a page lists, and its name there."""
    module, _, name = full.rpartition(".")
    return getattr(import_module(module), name).__module__, name


def test_every_link_within_the_site_leads_somewhere(pages):
    broken = []
    for path, page in pages.items():
        for link in page.links:
            url = urlsplit(link)
            if url.scheme or url.netloc:
                continue
            target = (path.parent / unquote(url.path)).resolve() if url.path else path
            anchor = unquote(url.fragment)
            if not target.exists():
                broken.append(f"{path.name}: {link}")
            elif anchor and target in pages and anchor not in pages[target].ids:
                broken.append(f"{path.name}: {link} (anchor)")
    assert len(pages) > 20 and not broken


def test_every_file_that_is_named_is_there():
    told = "\n".join(path.read_text(encoding="utf-8") for path in PAGES)
    named = set(
        re.findall(r"\b(?:jobs|deploy)/[\w./-]+\.(?:toml|sh|yaml|service|timer|crontab)", told)
    )
    assert len(named) > 10 and not [name for name in named if not (ROOT / name).exists()]


def shown_commands():
    """The command lines of popdask on all pages and in the README, each once."""
    for path in (*PAGES, ROOT / "README.md"):
        told = path.read_text(encoding="utf-8").replace("\\\n", " ")
        blocks = re.findall(r"^```(?:console|bash|sh)?\n(.*?)^```", told, re.DOTALL | re.MULTILINE)
        inline = re.findall(r"`(popdask [a-z]+ [^`]*(?:JOB|\.toml)[^`]*)`", told)
        for line in (*"\n".join(blocks).splitlines(), *inline):
            if found := re.match(r"(?:\$ )?(popdask [a-z].*)", line.strip()):
                yield found[1]


@pytest.mark.parametrize("line", sorted(set(shown_commands())))
def test_every_command_that_is_shown_is_understood(line):
    words = shlex.split(line.partition(" | ")[0], comments=True)[1:]
    command = typer.main.get_command(app)
    context = command.make_context("popdask", words)
    while hasattr(command, "commands"):
        words = [*context._protected_args, *context.args]
        name, command, rest = command.resolve_command(context, words)
        context = command.make_context(name, rest, parent=context)
    assert context.command.name


def told_columns(text):
    """The columns that a page tells of, by the table that they are of."""
    told = {}
    for part in re.split(r"^##+ ", text, flags=re.MULTILINE):
        heading, _, section = part.partition("\n")
        rows = re.findall(r"^\|(.+)\|(.+)\|(.+)\|$", section, re.MULTILINE)
        for first, second, third in rows:
            if rows[0][0].strip() == "column":
                assert second.strip() and third.strip(), (heading, first)
                told.setdefault(heading, set()).update(re.findall(r"`(\w+)`", first))
            else:
                told[first.strip(" `")] = set(re.findall(r"`(\w+)`", third))
    return told


@pytest.fixture(scope="module")
def estimated(tmp_path_factory):
    """The folder of the tables of a population job with intervals."""
    folder = tmp_path_factory.mktemp("estimated")
    dots.write_world(folder)
    job = test_intervals.sure(folder, folder / "dots.icechunk", level=0.5, square=2)
    population.run(job)
    return job.export_folder


def test_every_column_of_an_export_is_told_with_its_unit(finished, estimated):
    told = told_columns((ROOT / "docs" / "reference" / "files.md").read_text(encoding="utf-8"))
    called = {"tracks": "Lines of tracks", "events": "tracks"}
    seen = {}
    for path in [*(finished / "out").glob("*/*.parquet"), *estimated.glob("*.parquet")]:
        kind = path.stem.partition("_")[2]
        layer, _, table = kind.rpartition("_")
        name = table if layer == "settlement" else kind
        columns = set(pyarrow.parquet.read_schema(path).names) - {"bbox"}
        columns = {re.sub("^settlement$", "community", name) if layer else name for name in columns}
        seen.setdefault(called.get(name, name), set()).update(columns)
    assert len(seen) == 13
    for name, columns in seen.items():
        ends = {column for column in columns if re.search("_(low|high)$", column)}
        assert columns - ends <= told[name], name
    for name in ("communities", "settlements", "tracks", "links", "Lines of tracks"):
        assert told[name] - seen[name] <= {*MOVEMENT, *SURE}, name


def blocks_of(page, language):
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize(
    ("page", "block"), [(page.stem, block) for page in PAGES for block in blocks_of(page, "toml")]
)
def test_every_file_of_settings_that_is_shown_is_right(page, block, tmp_path):
    path = tmp_path / f"{page}.toml"
    if block.startswith("[input]"):  # the tables that the page is about
        block = f'name = "shown"\n{block}'
    path.write_text(block, encoding="utf-8")
    keys = tomllib.loads(block).keys()
    names = {field.alias or key for key, field in ClusterFile.model_fields.items()}
    assert (load_spec if keys <= names else load_job)(path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder in which the jobs that the pages speak of have run."""
    folder = tmp_path_factory.mktemp("finished")
    small.small_world().write(folder / "frames")
    output = {"export": ["cog", "geoparquet", "zarr"]}
    oslo, other = (folder / "out" / f"{name}.icechunk" for name in ("oslo", "luxembourg"))
    settings = small.settings(folder / "frames", oslo, output=output) | {"name": "oslo"}
    communities.run(CommunitiesJob.model_validate(settings))
    shutil.copytree(oslo, other)
    test_settlements.write_country(folder / "frames")
    norway = folder / "out" / "norway.icechunk"
    output = {"export": ["geoparquet"]}
    settings = test_settlements.job(folder / "frames", norway, name="norway", output=output)
    settlements.run(settings)
    halves = [shapely.box(4e6, 3e6, 4.15e6, 3.3e6), shapely.box(4.15e6, 3e6, 4.3e6, 3.3e6)]
    units = gpd.GeoDataFrame({"code": ["W", "E"]}, geometry=halves, crs="EPSG:3035")
    units.to_file(folder / "municipalities.gpkg")
    earth = wrap_xr(np.ones(test_seams.WORLD.shape, np.float32), test_seams.WORLD)
    earth.rio.to_raster(folder / "world_2020.tif")
    return folder


@pytest.mark.parametrize(
    "page", [page for page in PAGES if blocks_of(page, "python")], ids=lambda page: page.stem
)
def test_the_python_of_a_page_runs(page, finished, monkeypatch):
    monkeypatch.chdir(finished)
    exec(compile("\n".join(blocks_of(page, "python")), page, "exec"), {"__name__": page.stem})
