"""From a population cube to communities through time."""

# How cells are put together where an encoder slides over them: tiles, and strips of their rows.
TILE = 128  # cells along a side of what is encoded at once
STRIP = 16  # rows: 16 × 128 cells of 128 hidden units are 1 MiB, which a core's cache holds
MOST_TILES = 8  # along a chunk's side: 1024 × 1024 cells of 16 latents are 64 MiB
VIEWS = 8  # of a window that is turned and mirrored, among which the first layer is shared out
WIDEST_RIM = 16  # More iterations exchange rims in between: work on a rim grows with its square.
