"""From aerial images to a population raster: cells, models, training, estimates."""
