"""Typed settings: TOML files, then the environment, then options; every value knows where it came from.

``load_settings`` gives the settings of one cluster, ``read_configuration`` the files alone, ``command_prefix`` the
argv by which another process (PostgreSQL's archiver) reaches the same settings.
"""

from pitr.config.keys import Key, all_keys
from pitr.config.load import Configuration, load_settings, read_configuration
from pitr.config.origin import Origin
from pitr.config.prefix import command_prefix, prefix_warnings
from pitr.config.secret_source import SecretSource
from pitr.config.settings import ClusterSettings, Policy, RepoSettings, Settings

__all__ = [
    "ClusterSettings",
    "Configuration",
    "Key",
    "Origin",
    "Policy",
    "RepoSettings",
    "SecretSource",
    "Settings",
    "all_keys",
    "command_prefix",
    "load_settings",
    "prefix_warnings",
    "read_configuration",
]
