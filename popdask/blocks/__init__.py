"""Blocks of chunked arrays: halos, exact sums, samples by global index, and fixed arithmetic."""
