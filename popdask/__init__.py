"""Human communities in gridded population data, found and followed through time, at any scale."""

__version__ = "0.1.0"
