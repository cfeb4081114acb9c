"""Worlds with a known answer, for tests, demonstrations and benchmarks.

`cities` renders cities into a population and invents a country of them; `planted_world` draws a
real raster several times and plants events in it; `orthophoto` draws a country as an aeroplane sees
it.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "cities": ["CHANGE", "City", "World", "moving_cities"],
        "orthophoto": ["OrthophotoWorld", "drawn_orthophoto"],
        "planted_world": ["PlantedWorld", "planted"],
    },
)
