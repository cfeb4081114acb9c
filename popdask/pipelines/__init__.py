"""How jobs are planned and run: one package for each kind of job, and what they share."""

from popdask.pipelines.products import product

__all__ = ["product"]
