"""Worlds with a known answer, for tests, demonstrations and benchmarks.

`world` renders cities into a population, `stories` invents a country of them; `planted` draws a
real raster several times and plants events in it. `orthophoto` draws a country as an aeroplane sees
it, from the `settlements` in it.
"""

from popdask.synthetic.orthophoto import OrthophotoWorld, drawn_orthophoto
from popdask.synthetic.planted import PlantedWorld, planted
from popdask.synthetic.stories import moving_cities
from popdask.synthetic.world import CHANGE, City, World

__all__ = [
    "CHANGE",
    "City",
    "OrthophotoWorld",
    "PlantedWorld",
    "World",
    "drawn_orthophoto",
    "moving_cities",
    "planted",
]
