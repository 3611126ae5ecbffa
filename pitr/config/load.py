"""From files, environment and options to ``Settings``."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pitr.config.environment import Environment, read_environment
from pitr.config.keys import Key
from pitr.config.layers import Assignment, Layer, Problems, Resolved, nearest, resolve, spellings
from pitr.config.origin import DEFAULT, Origin
from pitr.config.settings import ClusterSettings, Given, Policy, RepoSettings, Settings
from pitr.config.tomlfile import DEFAULT_LOCATION, ConfigFile, Location, read_location
from pitr.config.values import looks_like_url, repository_url
from pitr.core.errors import AmbiguousName, ConfigError

DEFAULT_CLUSTER = "main"
# A cluster's name is the first part of object names, beside the repository's own (FORMAT.md of pitr.repo).
_NAME = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}$")
_RESERVED = ("keys", "pitr.json")


class Configuration(NamedTuple):
    """What the files say, section by section, each a list of layers; known keys only, values not yet converted."""

    location: Location
    sections: Mapping[str, Mapping[str, Sequence[Layer]]]
    environment: Environment

    @property
    def cluster_names(self) -> tuple[str, ...]:
        return tuple(self.sections["cluster"])

    def settings(
        self, *, cluster: str | None = None, repo: str | None = None, overrides: Mapping[str, object] | None = None
    ) -> Settings:
        """The settings of one cluster. ``overrides``: values of options, by key name.

        Raises ConfigError with everything that is wrong, AmbiguousName when several clusters are configured and none
        is named.
        """
        problems = Problems()
        name, origin = self._select_cluster(cluster)
        upper = self._upper_layers(overrides or {})
        resolved = resolve("cluster", name, [*self.sections["cluster"].get(name, ()), *upper["cluster"]], problems)
        repos, repo_parts = self._repos(repo, resolved, upper["repo"], problems)
        cluster_settings = _cluster(name, resolved)
        parts = [("cluster", name, resolved), *repo_parts]
        problems.raise_if_any()
        return Settings(
            cluster=cluster_settings,
            cluster_origin=origin,
            repos=repos,
            location=self.location.path,
            files=tuple(file.path for file in self.location.files),
            origins={
                f"{kind}.{of}.{key}": assignment.origin
                for kind, of, part in parts
                for key, assignment in part.chosen.items()
            },
            given=self._given(parts, repo),
            warnings=self.environment.warnings,
        )

    def all_settings(self, *, repo: str | None = None) -> tuple[Settings, ...]:
        """Every configured cluster (``--all``); without any, the unnamed one."""
        if not self.cluster_names:
            return (self.settings(repo=repo),)
        return tuple(self.settings(cluster=name, repo=repo) for name in self.cluster_names)

    def _select_cluster(self, option: str | None) -> tuple[str, Origin]:
        if option:
            name, origin = option, Origin("option", "--cluster")
        elif self.environment.cluster:
            name, origin = self.environment.cluster, Origin("environment", "PITR_CLUSTER")
        elif len(self.cluster_names) == 1:
            only = self.cluster_names[0]
            return only, Origin("file", "the only cluster configured")
        elif self.cluster_names:
            raise AmbiguousName(
                "several clusters are configured: " + ", ".join(self.cluster_names),
                hint=f"add --cluster {self.cluster_names[0]}, or set PITR_CLUSTER",
            )
        else:
            return DEFAULT_CLUSTER, DEFAULT
        check_name("cluster", name)
        if self.cluster_names and name not in self.cluster_names:
            close = nearest(name, self.cluster_names)
            raise ConfigError(
                f'cluster "{name}" is not configured',
                detail="configured: " + ", ".join(self.cluster_names),
                hint=f"did you mean {close}?" if close else f"add [cluster.{name}] to {self.location.path}",
            )
        return name, origin

    def _upper_layers(self, overrides: Mapping[str, object]) -> dict[str, list[Layer]]:
        """Environment and options, sorted into the section that each key belongs to."""
        layers: dict[str, list[Layer]] = {"repo": [], "cluster": []}
        options = {
            name: Assignment(
                name, value, Origin("option", "--" + name.replace("_", "-").replace(".", "-")), Path.cwd(), textual=True
            )
            for name, value in overrides.items()
            if value is not None
        }
        for section, into in layers.items():
            known = spellings(section)
            for layer in (self.environment.assignments, options):
                part = {spelling: assignment for spelling, assignment in layer.items() if spelling in known}
                if part:
                    into.append(part)
        return layers

    def _repos(
        self, option: str | None, cluster: Resolved, upper: list[Layer], problems: Problems
    ) -> tuple[tuple[RepoSettings, ...], list[tuple[str, str, Resolved]]]:
        configured = self.sections["repo"]
        selected, origin = option, Origin("option", "--repo")
        if not selected and self.environment.repo:
            selected, origin = self.environment.repo, Origin("environment", "PITR_REPO")
        if selected:
            name, lower = self._selected_repo(selected, origin)
            chosen = {name: lower}
        else:
            listed = cluster.values.get("repos")
            names = listed if isinstance(listed, tuple) else tuple(configured)
            chosen = {name: configured[name] for name in names if name in configured}
            for name in names:
                if name not in configured:
                    close = nearest(name, configured)
                    problems.add(
                        f'repository "{name}" is not configured ({cluster.chosen["repos"].origin})',
                        f"did you mean {close}?" if close else f"add [repo.{name}] with its url",
                    )
        if upper and len(chosen) != 1:
            first = next(iter(upper[0].values()))
            what = f"of {', '.join(chosen)}" if chosen else "(none is configured)"
            problems.add(
                f"{first.origin} needs one repository {what}", "choose one with --repo or PITR_REPO, or use the file"
            )
            upper = []
        parts = [("repo", name, resolve("repo", name, [*layers, *upper], problems)) for name, layers in chosen.items()]
        repos = (_repo(name, part, problems) for _, name, part in parts)
        return tuple(repo for repo in repos if repo is not None), parts

    def _selected_repo(self, text: str, origin: Origin) -> tuple[str, Sequence[Layer]]:
        configured = self.sections["repo"]
        if text in configured:
            return text, configured[text]
        if not looks_like_url(text):
            close = nearest(text, configured)
            raise ConfigError(
                f'repository "{text}" is not configured ({origin})',
                hint=f"did you mean {close}?"
                if close
                else "name a configured one, or give a URL such as s3://bucket/x",
            )
        try:
            url = repository_url(text, Path.cwd())
        except ValueError as error:
            raise ConfigError(f"{origin}: {error}") from error
        for name, layers in configured.items():
            if _url_of(layers) == url:
                return name, layers
        name = next(name for name in ("main", "given", "selected") if name not in configured)
        return name, [{"url": Assignment("url", url, origin, Path.cwd())}]

    def _given(self, parts: list[tuple[str, str, Resolved]], repo_option: str | None) -> tuple[Given, ...]:
        """What another process must be told because it stands in no file."""
        found: list[Given] = []
        for section, name, part in parts:
            known = spellings(section)
            found += [
                _given_value(known[assignment.spelling], assignment, part.values.get(key))
                for key, assignment in part.chosen.items()
                if assignment.origin.kind in ("environment", "option") and assignment.spelling != "url"
            ]
            if section == "repo" and (repo_option or self.environment.repo):
                kind: Any = "option" if repo_option else "environment"
                in_file = name in self.sections["repo"]
                value = name if in_file else str(part.values.get("url"))
                found.append(Given("PITR_REPO", value, Origin(kind, "--repo" if repo_option else "PITR_REPO"), True))
        return tuple(found)


def load_settings(
    *,
    config: str | None = None,
    cluster: str | None = None,
    repo: str | None = None,
    overrides: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """The settings of one cluster, from ``--config`` and so on. Raises ConfigError or AmbiguousName."""
    return read_configuration(config, environ).settings(cluster=cluster, repo=repo, overrides=overrides)


def read_configuration(
    config: str | None = None, environ: Mapping[str, str] | None = None, *, default: Path = DEFAULT_LOCATION
) -> Configuration:
    """Files and environment, unknown keys refused. Raises ConfigError naming all of them."""
    environment = read_environment(os.environ if environ is None else environ)
    by = Origin("option", "--config") if config else Origin("environment", "PITR_CONFIG")
    location = read_location(config or environment.config, by, default=default)
    problems = Problems()
    sections: dict[str, dict[str, list[Layer]]] = {"repo": {}, "cluster": {}}
    for file in location.files:
        _collect(file, sections, problems)
    problems.raise_if_any()
    return Configuration(location, sections, environment)


def check_name(section: str, name: str) -> None:
    """Raises ConfigError for a name that cannot be part of object names."""
    if not _NAME.match(name) or name in _RESERVED:
        raise ConfigError(
            f'"{name}" cannot be the name of a {section}', hint="letters, digits, _ . and -, at most 63 characters"
        )


def _collect(file: ConfigFile, sections: dict[str, dict[str, list[Layer]]], problems: Problems) -> None:
    for section, named in file.content.items():
        where = file.origin(section)
        if section not in sections:
            close = nearest(section, sections)
            problems.add(f"unknown section {section} ({where})", f"did you mean {close}?" if close else None)
            continue
        tables = named if isinstance(named, dict) else {section: named}
        for name, table in tables.items():
            if not isinstance(table, dict):
                problems.add(f"{section}.{name} is not a section ({where})", f"write [{section}.NAME], then its keys")
                continue
            try:
                check_name(section, name)
            except ConfigError as error:
                problems.add(f"{error.message} ({where})", error.hint)
                continue
            layer = _layer(file, section, name, table, problems)
            sections[section].setdefault(name, []).append(layer)


def _layer(file: ConfigFile, section: str, name: str, table: Mapping[str, object], problems: Problems) -> Layer:
    known = spellings(section)
    flat: dict[str, object] = {}
    for key, value in table.items():
        if isinstance(value, dict) and any(spelling.startswith(key + ".") for spelling in known):
            flat.update({f"{key}.{inner}": item for inner, item in value.items()})
        else:
            flat[key] = value
    layer: dict[str, Assignment] = {}
    for spelling, raw in flat.items():
        origin = file.origin(f"{section}.{name}.{spelling}")
        if spelling in known:
            layer[spelling] = Assignment(spelling, raw, origin, file.path.parent)
            continue
        close = nearest(spelling, known)
        problems.add(f"unknown key {section}.{name}.{spelling} ({origin})", f"did you mean {close}?" if close else None)
    return layer


def _url_of(layers: Sequence[Layer]) -> str | None:
    assignments = [layer["url"] for layer in layers if "url" in layer]
    try:
        return repository_url(assignments[-1].raw, assignments[-1].base) if assignments else None
    except ValueError:
        return None


def _cluster(name: str, resolved: Resolved) -> ClusterSettings:
    plain: dict[str, Any] = {key: value for key, value in resolved.values.items() if "." not in key}
    policy: dict[str, Any] = {
        key.removeprefix("policy."): value for key, value in resolved.values.items() if key.startswith("policy.")
    }
    return ClusterSettings(name=name, policy=Policy(**policy), **plain)


def _repo(name: str, resolved: Resolved, problems: Problems) -> RepoSettings | None:
    values: dict[str, Any] = dict(resolved.values)
    if "url" not in resolved.chosen:
        problems.add(f"repo.{name} has no url", f'add url = "s3://bucket/prefix" below [repo.{name}]')
    if "url" not in values:
        return None
    repo = RepoSettings(name=name, **values)
    chosen = resolved.chosen
    if not repo.encryption and repo.has_key:
        key = next(key for key in ("key_file", "passphrase", "key_command", "recovery_key") if key in chosen)
        problems.add(
            f"repo.{name}: encryption = false ({chosen['encryption'].origin}) and {chosen[key].spelling} "
            f"({chosen[key].origin}) exclude one another"
        )
    if (repo.access_key is None) != (repo.secret_key is None):
        one = "access_key" if repo.access_key else "secret_key"
        other = "secret_key" if repo.access_key else "access_key"
        problems.add(f"repo.{name}: {one} ({chosen[one].origin}) needs {other}")
    if repo.profile and repo.access_key:
        problems.add(f"repo.{name}: profile and access_key exclude one another ({chosen['access_key'].origin})")
    return repo


def _given_value(key: Key, assignment: Assignment, value: object) -> Given:
    from pitr.config.environment import as_variable_text

    variable, text = as_variable_text(key, assignment.spelling, value)
    return Given(variable, text, assignment.origin, key.wal)
