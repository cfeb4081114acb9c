"""What newcomers hand to a verb by mistake: one sentence that says what is wrong."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import popdask
from popdask import InputError
from popdask.tracking.autoencoder import FittedEncoder, Scaling

POPULATION = xr.DataArray(
    np.ones((2, 12, 14), "float32"), dims=("time", "y", "x"), name="population"
).assign_coords(time=pd.to_datetime(["2000", "2001"]))
CUBE = POPULATION.to_dataset()
MAP = POPULATION.rename(y="lat", x="lon")
FLOW = xr.Dataset({"u": POPULATION * 0, "v": POPULATION * 0})
FEATURES = popdask.stack_features(POPULATION, FLOW)
COMMUNITY = POPULATION.astype("int32").rename("community")
ENCODER = FittedEncoder(popdask.WindowAutoencoder(), Scaling((0, -1, -1), (90, 1, 1)), 12, 14)
LATENT = POPULATION.expand_dims(latent=16, axis=-1)
LINKS = popdask.link(COMMUNITY, POPULATION)

MISTAKES = {
    "a Dataset to the flow": (
        lambda: popdask.optical_flow(CUBE),
        r"a Dataset that holds 'population'; .* dataset\['population'\]",
    ),
    "an ndarray to the flow": (
        lambda: popdask.optical_flow(POPULATION.values),
        r"population is a NumPy array; .* xarray\.DataArray\(values, dims=",
    ),
    "a map to the flow": (
        lambda: popdask.optical_flow(MAP),
        r"population\.rename\(lat='y', lon='x'\)",
    ),
    "a Dataset to the domain": (lambda: popdask.domain(CUBE), "is a Dataset"),
    "a map to the domain": (lambda: popdask.domain(MAP), "rename"),
    "one component as flow": (
        lambda: popdask.stack_features(POPULATION, FLOW["u"]),
        "flow is a DataArray; .* optical_flow makes",
    ),
    "people to the training": (
        lambda: popdask.fit_autoencoder(POPULATION),
        "expected channel, y and x among them; stack_features makes them",
    ),
    "text as a number of epochs": (
        lambda: popdask.fit_autoencoder(FEATURES, epochs="2"),
        "epochs is '2', expected a whole number",
    ),
    "encoder and features in the wrong order": (
        lambda: popdask.encode(ENCODER, FEATURES),
        "expected the FittedEncoder that fit_autoencoder makes; mind the order",
    ),
    "people to the encoder": (lambda: popdask.encode(POPULATION, ENCODER), "stack_features"),
    "the network in place of the encoder": (
        lambda: popdask.encode(FEATURES, ENCODER.module),
        "encoder is a WindowAutoencoder",
    ),
    "features to the classes": (lambda: popdask.kmeans(FEATURES), "encode makes it"),
    "the network in place of the encoder, to the classes": (
        lambda: popdask.kmeans(LATENT, k=2, encoder=ENCODER.module),
        "encoder is a WindowAutoencoder; expected the FittedEncoder that fit_autoencoder makes",
    ),
    "people to the communities": (lambda: popdask.dbscan(POPULATION), "float32"),
    "a distance to the communities": (
        lambda: popdask.dbscan(COMMUNITY, eps="2.5 km"),
        r"in_cells\('2\.5 km'",
    ),
    "people and communities in the wrong order, to the links": (
        lambda: popdask.link(POPULATION, COMMUNITY),
        r"community holds float32 \('population'\); .* mind the order",
    ),
    "the same, to the summary": (
        lambda: popdask.summarize(POPULATION, COMMUNITY),
        "mind the order",
    ),
    "the same, to the balance": (
        lambda: popdask.people_balance(POPULATION, COMMUNITY),
        "mind the order",
    ),
    "features as flow": (
        lambda: popdask.summarize(COMMUNITY, POPULATION, FEATURES),
        "flow is a DataArray",
    ),
    "tables in the wrong order": (
        lambda: popdask.tracks(pd.DataFrame({"time": [], "community": []}), LINKS),
        "links has no column 'source', 'target', 'people' and 'overlap'",
    ),
    "labels as a table": (
        lambda: popdask.tracks(LINKS, COMMUNITY),
        "communities is a DataArray; expected the table that summarize makes",
    ),
    "a number as frames": (lambda: popdask.open_frames(5), "frames is 5"),
    "an array to be written": (
        lambda: popdask.write_cube(POPULATION, "nowhere"),
        "no variable population",
    ),
    "a number as cluster": (lambda: popdask.connect(4).__enter__(), "the cluster '4' is unknown"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_told_in_one_sentence(mistake):
    call, sentence = MISTAKES[mistake]
    with pytest.raises(InputError, match=sentence) as told:
        call()
    assert "\n" not in str(told.value)


def test_a_notebook_shows_the_sentence_alone():
    with pytest.raises(InputError) as told:
        popdask.open_frames("pop.tif")
    (line,) = told.value._render_traceback_()
    assert line == f"InputError: {told.value}"
