"""Population rasters to start with: WorldPop, GHS-POP and GPW, fetched from who publishes them.

Files are brought once, resumed where a transfer broke, compared with their checksums, and laid as
whole frames into a folder whose pattern `popdask.open_frames` and job files take. Every folder says
whom to credit.
"""

from popdask.fetch.credits import Credit
from popdask.fetch.downloads import Downloads
from popdask.fetch.frames import Fetched
from popdask.fetch.ghspop import fetch_ghspop
from popdask.fetch.gpw import fetch_gpw
from popdask.fetch.tiles import MOLLWEIDE, WGS84, TileGrid
from popdask.fetch.transfer import FetchError, Patience
from popdask.fetch.worldpop import fetch_worldpop

__all__ = [
    "MOLLWEIDE",
    "WGS84",
    "Credit",
    "Downloads",
    "FetchError",
    "Fetched",
    "Patience",
    "TileGrid",
    "fetch_ghspop",
    "fetch_gpw",
    "fetch_worldpop",
]
