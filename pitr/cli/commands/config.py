"""pitr config show, validate, detect."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from pitr.cli.command import Context, Done, command
from pitr.config.detect import DetectedCluster, detect, to_toml
from pitr.config.show import Shown, doubts, effective


@dataclass(frozen=True, slots=True)
class ShowResult:
    cluster: str
    cluster_origin: str
    files: tuple[str, ...]
    settings: tuple[Shown, ...]


def render_show(result: ShowResult) -> Iterator[str]:
    yield f"# files: {', '.join(result.files) or 'none'}"
    yield f"# cluster: {result.cluster} ({result.cluster_origin})"
    for section, rows in itertools.groupby(result.settings, key=lambda row: row.section):
        yield ""
        yield f"[{section}]"
        shown = [(row.key, "(not set)" if row.value is None else row.value, row.origin) for row in rows]
        width = max(len(f"{key} = {value}") for key, value, _ in shown)
        for key, value, origin in shown:
            yield f"{f'{key} = {value}'.ljust(width)}  # {origin}"


@command(schema="pitr.config-show/1", render=render_show)
def show(context: Context) -> ShowResult:
    """Show the effective settings of a cluster and its repositories.

    Every value is followed by where it comes from: a file with its line, an environment variable, an option, or the
    default. Secrets are not shown.
    """
    settings = context.settings()
    return ShowResult(
        cluster=settings.cluster.name,
        cluster_origin=str(settings.cluster_origin),
        files=tuple(str(path) for path in settings.files),
        settings=effective(settings),
    )


@dataclass(frozen=True, slots=True)
class ClusterDoubts:
    cluster: str
    repositories: tuple[str, ...]
    doubts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ValidateResult:
    files: tuple[str, ...]
    clusters: tuple[ClusterDoubts, ...]


def render_validate(result: ValidateResult) -> Iterator[str]:
    for cluster in result.clusters:
        where = ", ".join(cluster.repositories) or "no repository"
        yield f"cluster {cluster.cluster}: {where}: {'valid' if not cluster.doubts else 'valid, but'}"
        yield from (f"  {doubt}" for doubt in cluster.doubts)


@command(schema="pitr.config-validate/1", render=render_validate)
def validate(context: Context) -> object:
    """Read the whole configuration and look for what is amiss.

    What is wrongly written ends with exit code 10. What is well written but doubtful on this machine, for this user
    (a missing directory, a key that everybody may read), is listed, with exit code 3. Nothing is connected to.
    """
    configuration = context.configuration()
    if context.options.cluster is not None:
        every = [configuration.settings(cluster=context.options.cluster, repo=context.options.repo)]
    else:
        every = [*configuration.all_settings(repo=context.options.repo)]
    found = tuple(
        ClusterDoubts(settings.cluster.name, tuple(repo.name for repo in settings.repos), doubts(settings))
        for settings in every
    )
    result = ValidateResult(tuple(str(path) for path in every[0].files), found)
    return Done(result) if any(cluster.doubts for cluster in found) else result


@dataclass(frozen=True, slots=True)
class DetectResult:
    clusters: tuple[DetectedCluster, ...]
    toml: str


def render_detect(result: DetectResult) -> Iterator[str]:
    yield from result.toml.splitlines()


@command(schema="pitr.config-detect/1", render=render_detect)
def detect_clusters(context: Context) -> DetectResult:
    """Propose a configuration file for this machine.

    Looks at pg_lsclusters, at running servers and at $PGDATA, and prints TOML.
    """
    found = detect()
    return DetectResult(found, to_toml(found))
