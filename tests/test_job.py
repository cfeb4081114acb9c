"""Job files become typed settings, or one sentence that says what to mend."""

import json
import os
from pathlib import Path

import pytest

from popdask.config import load_job, settings_rows
from popdask.config.load import JOBS, load_job_with, settings_of
from popdask.errors import InputError

JOB = """
name = "oslo"
[input]
frames = "{frames}"
[output]
store = "out/oslo.icechunk"
"""


def write(folder, text):
    path = folder / "job.toml"
    path.write_text(text)
    return path


@pytest.fixture
def job_file(tmp_path):
    return write(tmp_path, JOB.replace("{frames}", "data/pop_{time:%Y}.tif"))


def test_defaults_are_those_of_the_original_work(job_file):
    job = load_job(job_file)
    assert (job.flow.iterations, job.flow.alpha, job.flow.centering) == (1, 10.0, (0, 0, 0))
    assert (job.classes.k, job.communities.eps, job.communities.min_samples) == (10, 10, 50)
    assert (job.domain.cells, job.encoder.edge, job.links.rule) == (
        "settled",
        "neutral",
        "cosine+overlap",
    )


def test_relative_paths_are_relative_to_the_job_file(job_file, tmp_path, monkeypatch):
    monkeypatch.chdir("/")
    job = load_job(job_file)
    assert job.input.frames == str(tmp_path / "data/pop_{time:%Y}.tif")
    assert job.output.store == str(tmp_path / "out/oslo.icechunk")
    assert job.export_folder == tmp_path / "out/oslo"


@pytest.mark.parametrize("name", ["a{z}", "a*", "}b"])
def test_a_folder_is_no_part_of_a_pattern(tmp_path, name):
    folder = tmp_path / name / "jobs"
    folder.mkdir(parents=True)
    path = folder / "oslo.toml"
    rest = 'name = "oslo"\noutput.store = "oslo.icechunk"\n'
    path.write_text(f'{rest}input.frames = "pop_{{year}}.tif"\n')
    with pytest.raises(InputError, match=r"\[input\] frames is the pattern .* rename the folder"):
        load_job(path)
    for frames in ("../../pop_{year}.tif", "/data/pop_{year}*.tif"):
        path.write_text(f'{rest}input.frames = "{frames}"\n')
        assert name not in load_job(path).input.frames
    assert load_job(path).output.store == str(folder / "oslo.icechunk")


def test_variables_expand(tmp_path, monkeypatch):
    monkeypatch.setenv("POP_TEST", "/grids")
    job = load_job(write(tmp_path, JOB.replace("{frames}", "${POP_TEST}/pop_{year}.tif")))
    assert job.input.frames == "/grids/pop_{year}.tif"


def test_the_home_folder_is_that_of_the_user(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    job = load_job(write(tmp_path, JOB.replace("{frames}", "~/grids/pop_{year}.tif")))
    assert job.input.frames == "/home/ada/grids/pop_{year}.tif"


@pytest.mark.parametrize("name", ["p" * 256, "ø" * 128, "a\\u0000"])
def test_a_name_that_no_file_can_have_is_refused(tmp_path, name):
    with pytest.raises(InputError, match=r"frames is .*, which no file can be called"):
        load_job(write(tmp_path, JOB.replace("{frames}", f"{name}/pop_{{year}}.tif")))


def test_a_pipe_is_no_job_file(tmp_path):
    os.mkfifo(tmp_path / "job.toml")
    with pytest.raises(InputError, match=r"job\.toml: the job file is a pipe or a device"):
        load_job(tmp_path / "job.toml")


def test_an_unset_variable_is_named(tmp_path, monkeypatch):
    monkeypatch.delenv("POP_TEST", raising=False)
    with pytest.raises(InputError, match=r"\[input\] frames uses \$\{POP_TEST\}.*export POP_TEST"):
        load_job(write(tmp_path, JOB.replace("{frames}", "${POP_TEST}/pop.tif")))


def test_urls_are_left_alone(tmp_path):
    job = load_job(write(tmp_path, JOB.replace("{frames}", "https://a.example/p_{year}.tif")))
    assert job.input.frames == "https://a.example/p_{year}.tif"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("[flow]\nalpa = 3", r"\[flow\] has no setting 'alpa' \(did you mean 'alpha'\?\)"),
        ("[flwo]\nalpha = 3", r"a job has no setting 'flwo' \(did you mean 'flow'\?\)"),
        ("[flow]\nalpha = 0", r"\[flow\] alpha is 0: .*greater than 0"),
        ("[flow]\ncentering = [0, 0, 2]", r"\[flow\] centering is 2: .*-1, 0 or 1"),
        ("[flow]\ncentering = [0, 0]", r"\[flow\] centering is \[0, 0\]: a value is missing"),
        ("[encoder]\nwindow = 8", r"\[encoder\] window is 8: .*odd number of cells"),
        ("[encoder]\nhidden = []", r"\[encoder\] hidden is \[\]: "),
        ('[encoder]\nactivation = "swish"', r'\[encoder\] activation is "swish": .*relu'),
        ("[classes]\nk = 1", r"k is 1: input should be greater than or equal to 2, or 'auto'\."),
        ('[communities]\neps = "0 km"', r'\[communities\] eps is "0 km": .*"2.5 km"'),
        ('[communities]\neps = "2 miles"', r'\[communities\] eps is "2 miles": .*"2.5 km"'),
        ("[flow]\nalpha = inf", r"\[flow\] alpha is Infinity: .*finite"),
        ('[flow]\nalpha = "3"', r'\[flow\] alpha is "3": expected a number, .* without quotes'),
        ('[classes]\nk = "6"', r'\[classes\] k is "6": expected a number, .* without quotes'),
        ("[flow]\nlog = 1", r"\[flow\] log is 1: expected true or false"),
        ('[flow]\nlog = "yes"', r'\[flow\] log is "yes": expected true or false'),
        ('[links]\nrule = "cos"', r'\[links\] rule is "cos": .*cosine\+overlap'),
    ],
)
def test_a_wrong_setting_gets_one_sentence(job_file, lines, message):
    job_file.write_text(job_file.read_text() + lines)
    with pytest.raises(InputError, match=message) as caught:
        load_job(job_file)
    assert str(caught.value).startswith(str(job_file))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("classes = true", "classes is true: input should be a table"),
        ("input.register = true", r"\[input\] register is true: .*'shift'"),
        ("input.times = true", r"\[input\] times is true: input should be a list"),
        ("input.times = [true]", r"\[input\] times is true: input should be a valid string"),
        ("input.start = true", r"\[input\] start is true: input should be a valid string"),
        ("input.error = true", r'error is true: expected a number, a text or "poisson"'),
        ("input.chunks = true", r'chunks is true: expected a number or "auto"'),
        ("input.align = 1", r'\[input\] align is 1: expected true, false or "cover"'),
        ("output.export = true", r"\[output\] export is true: .*'cog'"),
        ("output.export = [true]", r"\[output\] export is true: .*'cog'"),
        ("encoder.hidden = true", r"\[encoder\] hidden is true: input should be a list"),
        ("encoder.hidden = [true]", r"\[encoder\] hidden is \[true\]: expected a number\."),
        ("encoder.hidden = ['8']", r"\[encoder\] hidden is .*: expected a number, which stands"),
    ],
)
def test_a_value_of_another_kind_is_told_what_was_expected(job_file, assignment, message):
    with pytest.raises(InputError, match=message):
        load_job_with(job_file, [assignment])


def test_a_path_that_no_file_can_have_is_one_sentence(tmp_path):
    with pytest.raises(InputError, match=r"the job file cannot be read \(.*name too long"):
        load_job(tmp_path / f"{'n' * 300}.toml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name = ", "not valid TOML"),
        ('name = "a"\n[output]\nstore = "s"', "the setting input.frames is missing"),
        ('name = "a"\n[input]\nframes = "f"', "the setting output.store is missing"),
        ('name = "a"\n[input]\n[output]\nstore = "s"', "the setting input.frames is missing"),
        ("input = 3", "input is 3"),
    ],
)
def test_an_incomplete_job_says_what_is_missing(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        load_job(write(tmp_path, text))


@pytest.mark.parametrize("name", ["../x", "a/b", "/x", "a\\b", "", "a\nb", "..", "a" * 101])
def test_a_name_cannot_lead_out_of_the_folders_that_are_named_after_it(tmp_path, name):
    text = JOB.replace('"oslo"', json.dumps(name))
    with pytest.raises(
        InputError, match=r"name is .*: (expected letters, digits|string should have)"
    ):
        load_job(write(tmp_path, text))


def test_a_mark_of_the_byte_order_is_no_part_of_the_text(tmp_path):
    file = write(tmp_path, "")
    file.write_text(JOB, encoding="utf-8-sig")
    assert load_job(file).name == "oslo"


def test_a_missing_job_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.toml: there is no such job file"):
        load_job(tmp_path / "nowhere.toml")


def test_a_distance_is_kept_as_text_and_cells_as_a_number(job_file):
    job_file.write_text(job_file.read_text() + '[communities]\neps = "2.5 km"')
    assert load_job(job_file).communities.eps == "2.5 km"
    assert load_job(job_file, {"communities.eps": 7.5}).communities.eps == 7.5


@pytest.mark.parametrize(
    ("store", "folder"),
    [
        ("out/oslo.icechunk", "out/oslo"),
        ("out/oslo", "out/oslo-export"),
        ("out/v1.2", "out/v1.2-export"),
    ],
)
def test_exports_lie_beside_the_store(job_file, store, folder):
    job = load_job(job_file, {"output.store": store})
    assert job.export_folder == Path(folder)


@pytest.mark.parametrize(
    ("store", "folder", "place", "local"),
    [
        ("s3://b/regions/oslo.icechunk", None, "s3://b/regions/oslo", "oslo"),
        ("s3://b/regions/oslo/", None, "s3://b/regions/oslo-export", "oslo-export"),
        ("s3://b/regions/oslo.icechunk", "s3://b/maps/", "s3://b/maps", "oslo"),
        ("s3://b/regions/oslo.icechunk", "out/maps", "out/maps", "out/maps"),
        ("out/oslo.icechunk", "s3://b/maps", "s3://b/maps", "out/oslo"),
    ],
)
def test_exports_go_to_a_bucket_and_figures_to_a_folder(job_file, store, folder, place, local):
    job = load_job(job_file, {"output.store": store, "output.folder": folder})
    assert (job.export_place, job.export_folder) == (place, Path(local))


@pytest.mark.parametrize("folder", ["gs://b/maps", "s3://b"])
def test_exports_go_to_no_other_place(job_file, folder):
    with pytest.raises(InputError, match=f"{folder}.*expected|{folder}: exports go to"):
        load_job(job_file, {"output.folder": folder})


@pytest.mark.parametrize("store", ["/a/b", "s3://a/b"])
def test_exports_within_the_store_are_refused(job_file, store):
    with pytest.raises(InputError, match="within the store: choose a folder beside it"):
        load_job(job_file, {"output.store": store, "output.folder": f"{store}/maps"})


@pytest.mark.parametrize("end", ["2019", '"2019"', "2019-01-01"])
def test_times_may_be_written_as_toml_writes_them(job_file, end):
    text = job_file.read_text().replace("[output]", f"end = {end}\n[output]")
    job_file.write_text(text)
    assert load_job(job_file).input.end.startswith("2019")


def test_overrides_replace_settings(job_file):
    job = load_job(job_file, {"output.store": "/else/where.icechunk", "classes.k": "auto"})
    assert job.output.store == "/else/where.icechunk"
    assert job.classes.k == "auto"


def test_settings_of_the_command_line_are_read_as_toml(job_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = {
        "classes.k=6": ("classes", "k", 6),
        "classes.k = auto": ("classes", "k", "auto"),
        'communities.eps="2.5 km"': ("communities", "eps", "2.5 km"),
        "communities.eps=2.5 km": ("communities", "eps", "2.5 km"),
        "flow.log=true": ("flow", "log", True),
        "flow.centering=[0, 0, 1]": ("flow", "centering", (0, 0, 1)),
        "input.end=2010": ("input", "end", "2010"),
        "output.store=elsewhere": ("output", "store", str(tmp_path / "elsewhere")),
    }
    for line, (table, name, value) in lines.items():
        assert getattr(getattr(load_job_with(job_file, [line]), table), name) == value
    job = load_job_with(job_file, ["classes.k=6", "classes.seed=3", "classes.k=7"])
    assert (job.classes.k, job.classes.seed) == (7, 3)


def test_another_pipeline_on_the_command_line_has_settings_of_its_own(job_file):
    job = load_job_with(job_file, ["pipeline=settlements", "settlements.density=50"])
    assert (job.pipeline, job.settlements.density) == ("settlements", 50)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("clases.k=6", r"a job has no setting 'clases' \(did you mean 'classes'"),
        ("classes.k=six", r'\[classes\] k is "six": '),
        ("classes=6", "classes is 6: "),
        ("classes.k", "--set 'classes.k' sets nothing; expected a setting and its value"),
        ("output.store=${NOT_SET}", r"--set: \[output\] store uses \$\{NOT_SET\}"),
    ],
)
def test_a_wrong_setting_of_the_command_line_is_named_as_in_the_file(job_file, line, message):
    with pytest.raises(InputError, match=message):
        load_job_with(job_file, [line])


def test_the_new_name_of_a_setting_is_offered(tmp_path, monkeypatch):
    monkeypatch.setenv("HERE", "counts")
    text = POPULATION.replace("[follow]", 'absent = "nobody"\n[follow]', 1)
    with pytest.raises(
        InputError, match=r"\[cells\] has no setting 'absent' \(it is 'missing' now"
    ):
        load_job(write(tmp_path, text))
    assert load_job(write(tmp_path, text.replace('absent = "nobody"', 'missing = "zero"')))


@pytest.mark.parametrize("text", ['"geopackage"', '["gpkg"]', '["geopackage"]', '"gpkg"'])
def test_a_geopackage_has_two_names(job_file, text):
    job_file.write_text(job_file.read_text() + f"export = {text}\n")
    assert load_job(job_file).output.export == ("gpkg",)


def test_every_setting_is_listed_with_its_meaning(job_file):
    rows = settings_rows(load_job(job_file))
    names = [name for name, _, _ in rows]
    assert {"name", "input.frames", "flow.alpha", "communities.min_people"} <= set(names)
    assert all(meaning for name, _, meaning in rows if "." in name)


POPULATION = """
name = "aarhus"
pipeline = "population"
[input]
mosaic = ["photos/{time:%Y}_a.tif", "s3://bucket/{time:%Y}_b.tif"]
[cells]
counts = "${HERE}/people.parquet"
[follow]
store = "out/communities.icechunk"
[follow.flow]
alpha = 5.0
[output]
store = "out/people.icechunk"
"""


def test_paths_are_resolved_in_every_table_and_list(tmp_path, monkeypatch):
    monkeypatch.setenv("HERE", "counts")
    job = load_job(write(tmp_path, POPULATION))
    assert job.input.mosaic == (
        str(tmp_path / "photos" / "{time:%Y}_a.tif"),
        "s3://bucket/{time:%Y}_b.tif",
    )
    assert job.cells.counts == str(tmp_path / "counts" / "people.parquet")
    assert job.follow.store == str(tmp_path / "out" / "communities.icechunk")


def test_the_job_that_follows_reads_the_estimates_of_the_first(tmp_path, monkeypatch):
    monkeypatch.setenv("HERE", "counts")
    job = load_job(write(tmp_path, POPULATION))
    assert job.followed().flow.alpha == 5.0
    assert job.followed().input.frames == str(
        tmp_path / "out" / "people" / "aarhus_population_{time:%Y}.tif"
    )
    assert job.grouped is None


def test_a_setting_of_a_table_within_a_table_is_named_whole(tmp_path, monkeypatch):
    monkeypatch.setenv("HERE", "counts")
    with pytest.raises(
        InputError, match=r"\[follow.flow\] has no setting 'alfa' \(did you mean 'alpha'"
    ):
        load_job(write(tmp_path, POPULATION.replace("alpha", "alfa")))
    with pytest.raises(InputError, match=r"\[follow.flow\] alpha is -5.0"):
        load_job(write(tmp_path, POPULATION.replace("5.0", "-5.0")))


def test_every_setting_of_tables_within_tables_is_shown(tmp_path, monkeypatch):
    monkeypatch.setenv("HERE", "counts")
    rows = {name: value for name, value, _ in settings_rows(load_job(write(tmp_path, POPULATION)))}
    assert rows["follow.flow.alpha"] == 5.0 and rows["census"] is None


def test_an_unknown_pipeline_is_told_with_those_that_are_there(tmp_path):
    with pytest.raises(InputError, match='pipeline is "photos": expected one of "communities", '):
        load_job(write(tmp_path, 'name = "x"\npipeline = "photos"\n'))


#: Settings that the tables of images do not go without.
NEEDED = {"cells.counts": "p.csv", "census.zones": "z.gpkg", "truth.counts": "t.csv"} | {
    "follow.store": "f.icechunk"
}


@pytest.mark.parametrize("pipeline", JOBS)
def test_true_is_neither_a_number_nor_a_text(tmp_path, pipeline):
    frames = pipeline in ("communities", "settlements")
    text = JOB if frames else JOB.replace("frames = ", "mosaic = ")
    path = write(tmp_path, text.replace("{frames}", "pop_{year}.tif"))
    given = {"pipeline": pipeline} | (NEEDED if pipeline == "population" else {})
    for name in settings_of(pipeline):
        *tables, key = name.split(".")
        setting = f"[{'.'.join(tables)}] {key}" if tables else key
        for value in (True, [True]):
            try:
                found = load_job(path, given | {name: value})
            except InputError as error:
                told = (f"{setting} is {json.dumps(value)}", f"{setting} is true: ")  # or of a part
                assert any(each in str(error) for each in told) or "bands" in tables, name
            else:
                for part in (*tables, key):
                    found = getattr(found, part)
                assert found is True, name
