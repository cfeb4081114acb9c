"""What the drawn world is made of, and the light that each material sends back."""

from enum import IntEnum

import numpy as np


class Material(IntEnum):
    """The surfaces of the drawn world."""

    CROP = 0
    STUBBLE = 1
    SOIL = 2
    MEADOW = 3
    FOREST = 4
    HEDGE = 5
    WATER = 6
    REED = 7
    ASPHALT = 8
    GRAVEL = 9
    LAWN = 10
    CROWN = 11
    RED_TILE = 12
    DARK_TILE = 13
    CEMENT = 14
    METAL = 15
    THATCH = 16
    TAR = 17
    GLASS = 18
    ROCK = 19
    PAINT = 20


COLOURS = np.array(
    [
        (84, 106, 62, 190),
        (172, 156, 116, 165),
        (128, 110, 92, 135),
        (104, 118, 76, 180),
        (46, 54, 42, 90),
        (64, 80, 52, 150),
        (40, 54, 60, 14),
        (98, 98, 68, 120),
        (112, 112, 114, 104),
        (160, 152, 140, 150),
        (96, 120, 72, 200),
        (66, 86, 54, 175),
        (150, 92, 72, 142),
        (82, 80, 84, 86),
        (146, 144, 142, 140),
        (164, 168, 172, 166),
        (124, 110, 92, 128),
        (100, 98, 98, 94),
        (150, 168, 170, 130),
        (138, 134, 126, 140),
        (150, 150, 156, 140),
    ],
    np.float32,
)
"""(material, band): red, green, blue and near infrared in full light, on the scale of 8 bits."""


def palette(bands: int) -> np.ndarray:
    """Give the brightness (material, band) of 1 band (grey), 3 (colour) or 4 (with infrared)."""
    if bands == 1:
        return (COLOURS[:, :3] @ np.array([0.299, 0.587, 0.114], np.float32))[:, None]
    return COLOURS[:, :bands].copy()
