"""From a population cube to communities through time."""
