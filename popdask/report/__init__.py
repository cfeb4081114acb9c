"""The report: one page about a finished job that explains itself, offline and on a phone.

`write_report` puts maps with a time slider, curves, timeline, tables, pictures and the record of
the run into one HTML file. The map is an overview of the rasters, as fine as the page's size
allows; plots are Bokeh's, and what Bokeh is the wrong tool for is the page's own script.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submod_attrs={"page": ["Picture", "is_page", "write_report"]}
)
