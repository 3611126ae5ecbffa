"""Which commands there are. A command's module is imported when the command is used."""

from __future__ import annotations

from dataclasses import dataclass

SECTIONS = ("set up", "every night", "before a migration", "something is lost", "look", "plumbing", "help")


@dataclass(frozen=True, slots=True)
class Entry:
    """``words``: "config show". ``target``: "module:attribute" of a click command. ``shape``: its arguments, for the
    list that ``pitr`` prints."""

    words: str
    target: str
    section: str
    summary: str
    shape: str = ""

    @property
    def path(self) -> tuple[str, ...]:
        return tuple(self.words.split())


_COMMANDS = "pitr.cli.commands"
ENTRIES: tuple[Entry, ...] = (
    Entry(
        "init",
        f"{_COMMANDS}.init:init",
        "set up",
        "make the repository and its key; --adopt: a new system id under this cluster name",
        "[--key-file F|...] [--adopt]",
    ),
    Entry(
        "config show",
        f"{_COMMANDS}.config:show",
        "set up",
        "effective settings and where each comes from",
    ),
    Entry(
        "config validate", f"{_COMMANDS}.config:validate", "set up", "read every section, and look for what is amiss"
    ),
    Entry("config detect", f"{_COMMANDS}.config:detect_clusters", "set up", "propose a configuration for this machine"),
    Entry(
        "backup base",
        f"{_COMMANDS}.backup:base",
        "every night",
        "back up the running cluster, physically",
        "[--if-older AGE] [--if-role ROLE] [--max-rate R] [--label L]",
    ),
    Entry(
        "find",
        f"{_COMMANDS}.find:find",
        "something is lost",
        "what happened to which tables, when, and where to stop before it",
        "[--since T] [--table TABLE] [--op OP] [--min-rows N] [--xid N]",
    ),
    Entry(
        "restore base",
        f"{_COMMANDS}.restore:base",
        "something is lost",
        "restore a cluster, up to any moment that the archive reaches",
        "[ID] --to DIR [TARGET] [--role R] [--delta]",
    ),
    Entry("list", f"{_COMMANDS}.look:list_command", "look", "the backups", "[--all]"),
    Entry("show", f"{_COMMANDS}.look:show", "look", "everything known of one backup", "ID"),
    Entry(
        "status",
        f"{_COMMANDS}.look:status",
        "look",
        "which moments can be restored, and what is amiss",
        "[--all] [--nagios]",
    ),
    Entry(
        "wal configure",
        f"{_COMMANDS}.wal:configure",
        "set up",
        "the server's settings for archiving",
        "[--print conf|sql|patroni] [--apply [--replace]]",
    ),
    Entry(
        "wal push",
        f"{_COMMANDS}.walplumbing:push",
        "plumbing",
        "archive one file (archive_command)",
        "PATH",
    ),
    Entry(
        "wal fetch",
        f"{_COMMANDS}.walplumbing:fetch",
        "plumbing",
        "fetch one file (restore_command)",
        "NAME DEST [--chain T --until SEG]",
    ),
    Entry(
        "wal receive",
        f"{_COMMANDS}.receive:receive",
        "plumbing",
        "stream WAL as it is written: at most a second is lost, or nothing",
        "[--slot NAME] [--create-slot] [--synchronous]",
    ),
    Entry("wal status", f"{_COMMANDS}.wal:status", "plumbing", "the archive and the server's archiver"),
    Entry("help", f"{_COMMANDS}.help:show_help", "help", "topics, offline", "[TOPIC]"),
    Entry("completion", f"{_COMMANDS}.completion:completion", "help", "script for bash, zsh or fish", "SHELL"),
)

GROUP_SUMMARIES = {
    "config": "Look at the configuration.",
    "backup": "Back up.",
    "restore": "Restore.",
    "wal": "Archive, stream and fetch WAL.",
}
