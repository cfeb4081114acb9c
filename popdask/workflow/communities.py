"""The communities job: population rasters in, communities tracked through time out.

population (→ motion) → flow → encoder → classifier → classes → communities → summary → links
(→ movement) → tracks → export

Each stage reads what the ones before it have stored, computes the frames that the plan calls stale,
and is committed when it is finished. Models are kept, whatever frames are appended, as long as
their settings are the same and the frames that they were fitted on are still there, unchanged.

What loads torch is loaded by the stages that use it: a plan, and most workers, need none of it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from popdask._repr_html import ReprMixin
from popdask.config.jobs import CommunitiesJob, Encoder
from popdask.store.repository import RegionStore
from popdask.tracking import VIEWS, WIDEST_RIM
from popdask.workflow import settlements
from popdask.workflow.frames import (
    CLASS,
    LABEL,
    MOTION,
    MOTION_STAGE,
    PEOPLE,
    POPULATION,
    FramesPipeline,
    FramesRun,
    read_extent,
    stored_motion,
    with_left_out,
)
from popdask.workflow.inputs import seam_notes
from popdask.workflow.layers import (
    Layer,
    Part,
    check,
    describe_result,
    export_stage,
    follow,
    frames_content,
    link_record,
    movement_stage,
    no_tracks,
    tracks_read,
    with_rates,
)
from popdask.workflow.plan import (
    Basis,
    CellCost,
    Costs,
    Extent,
    Fingerprint,
    Plan,
    Record,
    Stage,
    StagePlan,
    Work,
    chained,
    lasting,
    plain,
)
from popdask.workflow.progress import Reporter
from popdask.workflow.runner import count, on_gpus, on_worker
from popdask.workflow.settlements import SettlementsResult

if TYPE_CHECKING:
    import geopandas as gpd
    import xarray as xr
    from matplotlib.figure import Figure

    from popdask.report.page import Picture
    from popdask.tracking.classify import ClassModel

#: Settings of flow, encoder and classes that came later, at what keeps the numbers of tracks.
PLAIN_FLOW = (("scales", 1), ("log", False))
PLAIN_ENCODER = (
    *(("window", 7), ("hidden", [128, 64]), ("l1", 0.0), ("l2", 0.0)),
    *(("activation", "relu"), ("latent_activation", "relu"), ("symmetric", False)),
)
PLAIN_METHOD = (("method", "kmeans"),)
PLAIN_CLASSES = (("distance", "codes"),)

#: Tasks of a chunk: of a flow that links follow, and what holding classes adds for each chunk, and
#: for each frame of several chunks, which waits for the whole one before it.
FLOW_TASKS, HOLD_TASKS, WAIT_TASKS = 8.0, (0.35, 4.3), 21
#: Cells that take as long as a window of training, a cell that is classified by, and a cell that is
#: encoded, beside the cells that a stage reads.
WINDOW_CELLS, SAMPLED_CELLS, ENCODED_CELLS = 600, 300, 4
WINDOWS = 1000  # that an epoch of training sees
KNEE = 19  # numbers of classes that are tried where none is given

COMMUNITY = Layer(
    "community",
    "communities",
    begin="",
    least=lambda job: job.communities.min_people,
)
MOVES = movement_stage(COMMUNITY)


@dataclass(frozen=True)
class CommunitiesRun(FramesRun):
    """What the stages of one run share; the arrays are lazy, as they are stored."""

    job: CommunitiesJob

    @property
    def domain(self) -> xr.DataArray:
        """The cells that are trained on, classified and grouped."""
        from popdask.blocks import sampling

        cells, window = self.job.domain.cells, self.job.encoder.window
        return sampling.domain(self.population, cells, window=window)

    @property
    def features(self) -> xr.DataArray:
        """Population and flow, as the encoder takes them."""
        from popdask.tracking import encoding

        stored = self.work.dataset()
        return encoding.stack_features(stored["population"], stored[["u", "v"]])

    @property
    def seeds(self) -> dict[str, int]:
        """The seeds of what is drawn."""
        return {"encoder": self.job.encoder.seed, "classes": self.job.classes.seed}

    def models(self, stale: Sequence[int]) -> dict[str, slice]:
        """The frames that each model serves, by the model's name, where one of them is stale."""
        if self.job.encoder.scope == "shared":
            return {"shared": slice(0, len(self.plan.times))} if stale else {}
        return {self.plan.times[i].replace(":", ""): slice(i, i + 1) for i in stale}


def _flow_record(basis: Basis, of: Fingerprint) -> Record:
    """A frame's flow depends on its neighbours in time, and with a warm start on all before."""
    population, settings = basis.frames("population"), basis.job.flow
    times, prints = list(population), dict[str, str]()
    before, after = (0 if settings.centering[2] == 1 else 1), int(settings.centering[2] != -1)
    for i, time in enumerate(times):
        near = [population[t] for t in times[max(i - before, 0) : i + after + 1]]
        earlier = prints[times[i - 1]] if settings.chained and i else None
        prints[time] = of([_flow_settings(basis.job)], near, i == 0, earlier)
    return {"frames": prints}


def _flow_settings(job: CommunitiesJob) -> dict[str, Any]:
    """The settings of the flow; what came later stands among them where it is used."""
    return _without(PLAIN_FLOW, job.flow.model_dump(mode="json"))


def _without(before: Collection[tuple[str, Any]], settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if (key, value) not in before}


def _flow_tasks(work: Work) -> float:
    settings, several = work.job.flow, work.several
    if settings.scales > 1:
        return 6 if several else 4
    sweeps = ceil(settings.iterations / WIDEST_RIM)
    each = 5 + 2 * settings.warm_start + 3 * (sweeps - 1) if several else 2 + sweeps
    return each - 2 * settings.warm_start * several / max(work.frames, 1)


def _compute_flow(run: CommunitiesRun, stage: StagePlan, reporter: Reporter) -> None:
    import xarray as xr

    from popdask.tracking import flow

    settings, start = run.job.flow.model_dump(), min(stage.stale) - 1
    if start < 0 or not run.job.flow.chained:
        arrays = flow.optical_flow(run.population, **settings)
    else:  # the chain goes on from the last frame that is stored
        stored = run.work.dataset()[["u", "v"]]
        later = run.population.isel(time=slice(start, None))
        rest = flow.optical_flow(later, first=stored.isel(time=start), **settings)
        arrays = xr.concat([stored.isel(time=slice(0, start)), rest], "time")
    run.work.write_frames(stage.name, arrays, stage.stale, stage.record)


FLOW = Stage(
    "flow",
    version=2,
    needs=("population",),
    wanted=_flow_record,
    cost=CellCost(
        read=PEOPLE,
        written=MOTION,
        held=40,
        tasks=_flow_tasks,
        more=lambda work: work.cells * (work.job.flow.iterations - 1),
    ),
    compute=_compute_flow,
)


def _encoder_record(basis: Basis, of: Fingerprint) -> Record:
    domain, network = _network_settings(basis.job)
    settings = of(domain, _flow_settings(basis.job), network)
    return _model_record("encoder", settings, basis, of)


def _network_settings(job: CommunitiesJob) -> list[Any]:
    """What the domain and the network are chosen by."""
    # The device is left out: a model may be trained on a GPU and used without one.
    domain, network = plain([job.domain, job.encoder.model_copy(update={"device": "auto"})])
    return [domain, _without(PLAIN_ENCODER, network)]


def _model_record(stage: str, settings: str, basis: Basis, of: Fingerprint) -> Record:
    """The record of a stage that fits models: one for all frames, or one for each."""
    population, flow = basis.frames("population"), basis.frames("flow")
    if basis.job.encoder.scope == "frame":
        frames = {t: of(settings, population[t], flow[t]) for t in population}
        return {"model": settings, "frames": frames}
    stored = basis.stored.get(stage, {})
    fitted = stored.get("frames", {})
    came = stored.get("nobody") and population.keys() - fitted.keys()  # where nobody lived
    same = fitted and not came and stored.get("settings") == settings
    if same and all(population.get(time) == print_ for time, print_ in fitted.items()):
        return {key: stored[key] for key in ("model", "settings", "frames")}
    frames = dict(population)
    return {"model": of(settings, frames), "settings": settings, "frames": frames}


def _has_one_model(job: CommunitiesJob) -> bool:
    return job.encoder.scope == "shared"


def _weights(job: CommunitiesJob) -> float:
    """The products from a window to its code, as a multiple of those of the original's."""

    def count(encoder: Encoder) -> int:
        views, (first, *others) = VIEWS if encoder.symmetric else 1, encoder.hidden
        own = [-(-first // views), *others, encoder.latent]
        return views * sum(a * b for a, b in pairwise([3 * encoder.window**2, *own]))

    return count(job.encoder) / count(Encoder(symmetric=False))


def _models(work: Work) -> int:
    return 1 if _has_one_model(work.job) else work.frames


def _train_encoder(run: CommunitiesRun, stage: StagePlan, reporter: Reporter) -> None:
    from popdask.tracking.autoencoder import EncoderConfig, NobodyError, train, training_windows

    settings = run.job.encoder
    config = EncoderConfig(**settings.model_dump(exclude={"scope", "device"}))
    fits, record = {}, dict(stage.record)
    for name, frames in run.models(stage.stale).items():
        features, each = run.features.isel(time=frames), config
        try:
            windows = training_windows(features, each, mask=run.domain.isel(time=frames))
        except NobodyError:  # a model is wanted all the same: of empty land, until people come
            each, record = replace(config, epochs=1), record | {"nobody": True}
            windows = training_windows(features, each)
        fits[name] = on_worker(train, windows, each, device=settings.device)
    files = {f"encoder-{name}.safetensors": fit().to_bytes() for name, fit in fits.items()}
    run.work.write_files(stage.name, files, record, anew=stage.whole)


ENCODER = Stage(
    "encoder",
    needs=("population", "flow"),
    wanted=_encoder_record,
    cost=CellCost(
        read=PEOPLE + MOTION,
        held=64,
        tasks=(6.0, 4.5),
        more=lambda work: round(
            WINDOW_CELLS * work.job.encoder.epochs * WINDOWS * _models(work) * _weights(work.job)
        ),
        whole=_has_one_model,
    ),
    compute=_train_encoder,
    anywhere=True,
)


def _class_settings(job: CommunitiesJob) -> dict[str, Any]:
    """The settings of classes; by which method they are fitted, where it came later."""
    (settings,) = plain([job.classes.model_copy(update={"method": job.classes.fitted_by})])
    return _without(PLAIN_METHOD, settings)


def _classifier_record(basis: Basis, of: Fingerprint) -> Record:
    encoder = basis.wanted["encoder"]["model"]
    settings = _class_settings(basis.job)
    del settings["hold"]
    return _model_record("classifier", of([settings], encoder), basis, of)


def _sampled(work: Work) -> int:
    tries = KNEE if work.job.classes.k == "auto" else 1
    return SAMPLED_CELLS * min(work.job.classes.sample * _models(work), work.settled) * tries


def _fit_classes(run: CommunitiesRun, stage: StagePlan, reporter: Reporter) -> None:
    from popdask.blocks.sampling import gather_cells, gather_windows, sample_cells
    from popdask.io.grids import pixel_area_km2
    from popdask.tracking import classify
    from popdask.tracking.autoencoder import FittedEncoder

    settings, files, area = run.job.classes, {}, pixel_area_km2(run.population)
    for name, frames in run.models(stage.stale).items():
        encoder = FittedEncoder.from_bytes(run.work.file(f"encoder-{name}.safetensors"))
        cells = sample_cells(run.domain.isel(time=frames), settings.sample, seed=settings.seed)
        if len(cells):
            features = run.features.isel(time=frames)
            windows = gather_windows(features, cells, size=encoder.window, fill=encoder.fill)
            people = gather_cells(run.population.isel(time=frames), cells)  # features are clipped
            latent = encoder.encode_windows(windows, cells)
            measured = encoder if settings.distance == "windows" else None
            model = classify.fit_classes(
                latent, settings.k, seed=settings.seed, encoder=measured, method=settings.fitted_by
            )
            model = classify.with_density(model, latent, people, area[cells[:, 1]])
        else:
            model = classify.ClassModel.of_nobody(run.job.encoder.latent)
        files[f"classifier-{name}.safetensors"] = model.to_bytes()
    run.work.write_files(stage.name, files, stage.record, anew=stage.whole)


CLASSIFIER = Stage(
    "classifier",
    version=3,
    needs=("population", "flow", "encoder"),
    wanted=_classifier_record,
    cost=CellCost(
        read=2 * PEOPLE + MOTION, held=64, tasks=(5.2, 3.5), more=_sampled, whole=_has_one_model
    ),
    compute=_fit_classes,
    anywhere=True,
)


def _classes_record(basis: Basis, of: Fingerprint) -> Record:
    model, hold = basis.wanted["classifier"]["model"], basis.job.hold
    population, flow = basis.frames("population"), basis.frames("flow")
    classes = {t: of(model, population[t], flow[t]) for t in basis.times}
    if hold:  # a frame's classes depend on those of all before
        classes = chained(of, [hold], classes)
    return {"frames": classes}


def _classes_tasks(work: Work) -> float:
    tasks = 5.0 if work.several else 3.2
    if work.job.hold:
        tasks += (
            HOLD_TASKS[0 if work.several else 1] + WAIT_TASKS * work.several / work.extent.blocks
        )
    return tasks


def _classify(run: CommunitiesRun, stage: StagePlan, reporter: Reporter) -> None:
    import xarray as xr

    from popdask.tracking import encoding
    from popdask.tracking.autoencoder import FittedEncoder
    from popdask.tracking.classify import REMEMBERED, ClassModel, class_flags, classify

    parts, most, hold = [], 0, run.job.hold
    begin = min(stage.stale) if hold else 0  # classes held are those of the frames before, stored
    before = run.work.dataset()["classes"][max(begin - REMEMBERED, 0) : begin] if begin else None
    if before is not None:
        parts.append(run.work.dataset()["classes"][:begin])
    for name, every in run.models(range(len(run.plan.times))).items():
        frames = slice(every.start + begin, every.stop)
        encoder = FittedEncoder.from_bytes(run.work.file(f"encoder-{name}.safetensors"))
        model = ClassModel.from_bytes(run.work.file(f"classifier-{name}.safetensors"))
        features, cells = run.features.isel(time=frames), run.domain.isel(time=frames)
        with on_gpus():  # classes too, so that codes do not travel
            latent = encoding.encode(features, encoder, mask=cells, device=run.job.encoder.device)
            parts.append(classify(latent, model, hold=hold, first=before))
        most = max(most, len(model.centers))
    classes = xr.concat(parts, "time").assign_attrs(class_flags(most)).to_dataset(name="classes")
    run.work.write_frames(stage.name, classes, stage.stale, stage.record)


CLASSES = Stage(
    "classes",
    version=2,
    needs=("population", "flow", "encoder", "classifier"),
    wanted=_classes_record,
    cost=CellCost(
        read=PEOPLE + MOTION,
        written=CLASS,
        held=lambda job: 46 + 4 * job.encoder.latent,
        tasks=_classes_tasks,
        # Squares with nothing to encode are passed over.
        more=lambda work: round(
            ENCODED_CELLS * work.cells * work.extent.encoded * _weights(work.job)
        ),
        coded=True,
    ),
    compute=_classify,
)


def _communities_record(basis: Basis, of: Fingerprint) -> Record:
    job, held = basis.job, [hold] if (hold := basis.job.hold) else []
    model = basis.wanted["classifier"]["model"]
    settings = lasting("communities", plain([job.communities]), model, *held)
    population, classes = basis.frames("population"), basis.frames("classes")
    frames = {t: of(settings, classes[t], population[t]) for t in basis.times}
    # As the settings, but whatever frames the models were fitted on, and whether land is left out:
    # the other communities are the same.
    groups = job.communities.model_dump(mode="json", exclude={"min_density"})
    classes = _without(PLAIN_CLASSES, _class_settings(job))
    chosen = [*_network_settings(job), groups, classes, _flow_settings(job)]
    return {"frames": frames, "settings": settings, "analysis": lasting("communities", *chosen)}


def _class_models(run: CommunitiesRun) -> Iterator[tuple[ClassModel, slice]]:
    """The fitted classes, each with the frames that it serves."""
    from popdask.tracking.classify import ClassModel

    for name, frames in run.models(range(len(run.plan.times))).items():
        yield ClassModel.from_bytes(run.work.file(f"classifier-{name}.safetensors")), frames


def _places(run: CommunitiesRun, reporter: Reporter) -> xr.DataArray:
    """The classes of cells, −1 where they are land between places."""
    import xarray as xr

    from popdask.tracking.classify import without_land

    classes, least = run.work.dataset()["classes"], run.job.communities.min_density
    if not least:
        return classes
    models = list(_class_models(run))
    density = np.concatenate([model.density for model, _ in models])
    land = density[density < least]
    if len(land) and density.any():
        left = "" if len(land) < len(density) else ", and none is left: give less"
        reporter.note(
            f"cells of {len(land)} of {len(density)} classes are land and in no community: with at "
            f"most {land.max():.0f} they hold fewer than {least:g} people per km² ([communities] "
            f"min_density){left}"
        )
    parts = [without_land(classes.isel(time=frames), model, least) for model, frames in models]
    return xr.concat(parts, "time")


def _group(run: CommunitiesRun, stage: StagePlan, reporter: Reporter) -> None:
    from popdask.io import grids
    from popdask.tracking import dbscan
    from popdask.tracking.dbscan import remove_small_communities

    settings = run.job.communities
    eps = grids.in_cells(settings.eps, run.population)
    places = _places(run, reporter)
    community = dbscan.dbscan(places, eps=eps, min_samples=settings.min_samples)
    if settings.min_people:
        community = remove_small_communities(community, run.population, settings.min_people)
    run.work.write_frames(
        stage.name, community.to_dataset(name="community"), stage.stale, stage.record
    )
    found = run.work.dataset().isel(time=list(stage.stale))
    for text in seam_notes(found["community"], eps, "communities", found["classes"]):
        reporter.note(text)


COMMUNITIES = Stage(
    "communities",
    version=3,
    needs=("population", "classifier", "classes"),
    wanted=_communities_record,
    cost=CellCost(
        read=lambda job: CLASS + (PEOPLE if job.communities.min_people else 0),
        written=LABEL,
        held=48,
        tasks=(5.6, 3.8),
        coded=True,
    ),
    compute=_group,
)


def _summary_record(basis: Basis, of: Fingerprint) -> Record:
    read = ["communities", "flow", *(["settlements"] if basis.job.has_settlements else [])]
    return {"frames": {t: of(*(basis.frames(stage)[t] for stage in read)) for t in basis.times}}


def _summarize(run: CommunitiesRun, stage: StagePlan, reporter: Reporter) -> None:
    import xarray as xr

    from popdask.tracking import describe

    balance = describe.people_balance(*run.frames(stage.stale, "community", "population"))
    describe.check_balance(balance)
    community, population, u, v = run.frames(stage.stale, "community", "population", "u", "v")
    table = describe.summarize(
        community, population, xr.Dataset({"u": u, "v": v}), tracks=no_tracks(community)
    )
    table["settlement"] = _settlement_of(run, stage, table)
    fresh = {"summary": table, "balance": with_left_out(run, balance)}
    run.work.write_files(stage.name, run.merged(stage, fresh), stage.record)


def _settlement_of(run: CommunitiesRun, stage: StagePlan, table: pd.DataFrame) -> np.ndarray:
    """The settlement in which more than half of a community's people live, by number; else −1."""
    from popdask.tracking import link

    if not run.job.has_settlements:
        return np.full(len(table), -1)
    arrays = run.frames(stage.stale, "community", "settlement", "population")
    shares = link.largest_share(*arrays).set_index(["time", "source"])
    rows = pd.MultiIndex.from_frame(pd.DataFrame(table[["time", "community"]]))
    found = shares.reindex(rows)
    most = found["people"].to_numpy() > 0.5 * table["population"].to_numpy()
    return np.where(most, found["target"].fillna(-1).to_numpy(np.int64), -1)


SUMMARY = Stage(
    "summary",
    version=4,
    needs=("population", "flow", "communities", "settlements"),
    wanted=_summary_record,
    cost=CellCost(
        read=2 * (PEOPLE + LABEL) + MOTION,
        held=160,
        # Some frames of an array are not fused with the reading.
        tasks=lambda work: 2.5 if work.stage.whole else 8.3,
        more=lambda work: work.settled,
    ),
    compute=_summarize,
    table=True,
)


def _links_record(basis: Basis, of: Fingerprint) -> Record:
    rules = {key: value for key, value in basis.job.links.model_dump().items() if value is not None}
    return link_record(basis, of, basis.frames("communities"), rules)


def _link(run: CommunitiesRun, stage: StagePlan, reporter: Reporter) -> None:
    options = run.job.links.model_dump(include={"rule", "share", "displaced"})
    found = run.compared(stage, "community", partial(_link_flows, run.job), **options)
    fresh = dict(zip((COMMUNITY.stage("links"), COMMUNITY.ends), found, strict=True))
    run.work.write_files(stage.name, run.merged(stage, fresh, by="next"), stage.record)


def _link_flows(job: CommunitiesJob, frames: xr.Dataset) -> dict[str, xr.Dataset]:
    """Return the flows that links follow: those of a pair depend on its two frames alone."""
    from popdask.tracking import flow

    if job.links.flow_scales is None:
        return {}
    if job.links.rule != "direction":
        return {"flow": stored_motion(frames, job)}
    settings: dict[str, Any] = {"scales": job.links.flow_scales, "log": True}
    return {
        name: flow.optical_flow(frames["population"], centering=(0, 0, way), **settings)
        for name, way in (("flow", 1), ("backward", -1))
    }


def _link_tasks(work: Work) -> float:
    links = work.job.links
    flows = 2 * (links.rule == "direction") or 0.4 * (links.flow_scales is not None)
    return (7.4 if work.several else 6.0) + FLOW_TASKS * flows


LINKS = Stage(
    "links",
    version=3,
    needs=("population", "motion", "communities"),
    wanted=_links_record,
    cost=CellCost(
        read=lambda job: 2 * (PEOPLE + LABEL) + MOTION * (job.links.flow_scales is not None),
        held=128,
        tasks=_link_tasks,
        more=lambda work: work.settled,
        coded=True,
    ),
    compute=_link,
    unit="pairs",
    table=True,
)


def _tracks_record(basis: Basis, of: Fingerprint) -> Record:
    job, rules = basis.job, basis.job.tracks.rules
    read = tracks_read(COMMUNITY, basis)
    if job.has_settlements:
        read.append(basis.frames("settlement_tracks"))  # which names settlements
    return {"frames": {basis.times[-1]: of(rules, job.communities.min_people, *read)}}


def _described(
    layer: Layer, run: CommunitiesRun, summary: gpd.GeoDataFrame, tracks: pd.DataFrame
) -> gpd.GeoDataFrame:
    """The table of communities: with motion, growth, place, and the name of the settlement."""
    from popdask.tracking import describe

    table = with_rates(layer, run, describe.follow(summary, tracks), tracks)
    if not run.job.has_settlements:
        return table.assign(settlement="")
    names = run.work.table("settlements").set_index(["time", "settlement"])["name"]
    rows = pd.MultiIndex.from_frame(pd.DataFrame(table[["time", "settlement"]]))
    return table.assign(settlement=names.reindex(rows).fillna("").to_numpy(dtype=object))


TRACKS = Stage(
    "tracks",
    version=8,
    needs=(
        *("population", "communities", "summary", "links", "movement"),
        *("settlements", "settlement_tracks"),
    ),
    wanted=_tracks_record,
    cost=CellCost(),
    compute=partial(follow, COMMUNITY, _described),
    table=True,
)


def _class_colours(run: CommunitiesRun) -> dict[str, np.ndarray]:
    from popdask.plot.style import CLASSES as COLOURS
    from popdask.plot.style import cycled

    return {"classes": cycled(COLOURS, max(model.k for model, _ in _class_models(run)))}


PART = Part(
    COMMUNITY,
    stages=("communities",),
    rasters=("classes", "community"),
    cell_bytes=CLASS + LABEL,
    colours=_class_colours,
)


def parts_of(job: CommunitiesJob) -> list[Part]:
    """What of a job can be exported."""
    return [PART, *settlements.parts_of(job)]


def illustrate(job: CommunitiesJob, region: RegionStore, branch: str) -> Iterator[Picture]:
    """Return the pictures of the report."""
    from popdask.workflow import communities_outputs

    return communities_outputs.illustrate(job, region, branch)


WORDS = "Communities of {}, found in gridded population data and followed through time."
_content = partial(frames_content, parts_of, WORDS, illustrate)
EXPORT = export_stage(
    _content,
    parts_of,
    needs=(
        *("population", "classes", "communities", "links", "tracks"),
        *settlements.EXPORTED,
    ),
)

STAGES = (
    POPULATION,
    MOTION_STAGE,
    *settlements.STAGES,
    FLOW,
    ENCODER,
    CLASSIFIER,
    CLASSES,
    COMMUNITIES,
    SUMMARY,
    LINKS,
    MOVES,
    TRACKS,
    EXPORT,
)


@dataclass(frozen=True, repr=False)
class CommunitiesResult(ReprMixin):
    """What a run did and found."""

    plan: Plan
    """What it had to compute."""
    communities: gpd.GeoDataFrame
    """The communities of every frame, with people, area, place and motion."""
    tracks: pd.DataFrame
    """The events of every track."""
    balance: pd.DataFrame
    """People in communities, outside them and in the raster, for every frame; those whom a move of
    the frame took beyond the grid, and the share of cells without data."""
    store: RegionStore
    """The results."""
    settled: SettlementsResult | None = None
    """The settlements that were found beside the communities; None where none were asked for."""

    def summary(self) -> dict[str, str]:
        """What was computed and found, in a few words."""
        summary_of = describe_result(
            "communities", self.communities, self.plan, self.tracks, self.balance, self.store
        )
        if self.settled is None:
            return summary_of
        results = summary_of.pop("results")
        found = settlements.PIPELINE.found(self.store)
        return {**summary_of, "settlements": found, "results": results}


class CommunitiesPipeline(FramesPipeline):
    """Communities of every frame, as the first work has them, followed through time."""

    stages, running = STAGES, CommunitiesRun
    content = staticmethod(_content)

    def size(self, job: CommunitiesJob) -> Extent:
        """Return how much the frames are, from the first one's header and a sample of another."""
        return read_extent(job, job.domain.cells, job.encoder.window)

    def costs(self, job: CommunitiesJob, plan: Plan) -> Costs:
        """Count what that costs; where there is nothing to compute, no cell is read."""
        size = read_extent(job) if plan.computed else self.size(job)
        return count(self.stages, job, plan, size)

    def check_source(self, job: CommunitiesJob, population: xr.DataArray) -> None:
        """Refuse inputs that a later stage could not read."""
        from popdask.io import grids

        grids.in_cells(job.communities.eps, population)
        super().check_source(job, population)
        if job.has_settlements:
            settlements.check_inputs(job, population)

    def result(self, plan: Plan, store: RegionStore) -> CommunitiesResult:
        """What a run gives."""
        tables = map(store.table, ("communities", "tracks", "balance"))
        communities, tracks, balance = tables
        settled = settlements.PIPELINE.result(plan, store) if _has_settlements(store) else None
        return CommunitiesResult(plan, communities, tracks, balance, store, settled)

    def found(self, store: RegionStore) -> str:
        """Say in a few words what the last finished run has found."""
        tracks = store.table("tracks", columns=["track"])["track"].nunique()
        communities = len(store.table("communities", columns=["time"]))
        text = f"{communities:,} communities in {tracks:,} tracks"
        return f"{text}; {settlements.PIPELINE.found(store)}" if _has_settlements(store) else text

    def check(self, store: RegionStore) -> Iterator[str]:
        """Count everyone again, in communities and settlements; check tracks by links."""
        yield from check(COMMUNITY, store, "balance")
        if _has_settlements(store):
            yield from settlements.PIPELINE.check(store)

    def figures(self, job: CommunitiesJob, region: RegionStore) -> Iterator[tuple[str, Figure]]:
        """Draw maps of every stage, and how good the models are."""
        from popdask.workflow.communities_outputs import figures

        return figures(job, region)


def _has_settlements(store: RegionStore) -> bool:
    return "settlements" in store.records()


PIPELINE = CommunitiesPipeline()
plan, run, run_only = PIPELINE.plan, PIPELINE.run, PIPELINE.run_only
