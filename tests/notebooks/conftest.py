"""What newcomers run takes minutes: it is tried only by name, as `make test-notebooks` does."""


def pytest_ignore_collect(config):
    asked = any("notebooks" in argument for argument in config.args)
    return None if asked else True
