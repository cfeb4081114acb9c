"""Population rasters to start with: WorldPop, GHS-POP and GPW, fetched from who publishes them.

Files are brought once, resumed where a transfer broke, compared with their checksums, and laid as
whole frames into a folder whose pattern `popdask.open_frames` and job files take. Every folder says
whom to credit.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "frames": ["Credit", "Fetched", "MOLLWEIDE", "TileGrid", "WGS84"],
        "ghspop": ["fetch_ghspop"],
        "gpw": ["fetch_gpw"],
        "transfer": ["Downloads", "FetchError", "Patience"],
        "worldpop": ["fetch_worldpop"],
    },
)
