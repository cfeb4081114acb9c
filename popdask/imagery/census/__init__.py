"""Known totals of zones, kept by estimates."""

from popdask.imagery.census.apportion import whole_people
from popdask.imagery.census.totals import HOW, keep_totals, zone_report
from popdask.imagery.census.zones import Zones, read_zones

__all__ = [
    "HOW",
    "Zones",
    "keep_totals",
    "read_zones",
    "whole_people",
    "zone_report",
]
