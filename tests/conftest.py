"""Fixtures of the whole suite live in tests/support; this file only names them."""

pytest_plugins = [
    "tests.support.cluster",
    "tests.support.s3server",
    "tests.support.archive",
]
