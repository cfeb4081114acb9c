"""Faults take minutes: they are tried only when asked for by name, as `make test-faults` does."""


def pytest_ignore_collect(config):
    asked = any("faults" in argument for argument in config.args)
    return None if asked else True
