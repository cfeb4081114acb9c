"""From aerial images to a population raster."""
