"""Worlds with a known answer, for tests, demonstrations and benchmarks.

`world` renders cities into a population, `stories` invents a country of them.
"""

from popdask.synthetic.stories import moving_cities
from popdask.synthetic.world import CHANGE, City, World

__all__ = ["CHANGE", "City", "World", "moving_cities"]
