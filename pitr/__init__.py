"""pitr: backup and point-in-time recovery for PostgreSQL.

Layers, top down (checked by import-linter; the arrows of imports point down only, siblings do not see one another)::

    cli                                   click, rendering, exit codes; nothing else prints or exits
    api                                   the same operations as typed functions, for other programs
    find                                  what happened: the indexes of WAL, and where a restore would stop before it
    base  archive  restore  status        engines: one frozen request in, one frozen result out
    repo  wal                             names, manifests, maps, catalog, leases; pages, records, transactions
    store  codec  pg                      names to bytes; bytes to bytes; every fact about PostgreSQL
    config                                typed settings with their origins
    core                                  errors, events, clock, units, files, pool, processes, secrets

PostgreSQL starts a process for each segment (``wal push``, ``wal fetch``), so what these two import counts: what they
do not always need is imported where it is used, and plain records on their way are named tuples, which take a tenth of
a dataclass's time to define. tests/unit/test_cold_start.py names the modules that must stay away.

What lies in a repository is specified in ``pitr/codec/FORMAT.md`` (how an object is framed and sealed) and
``pitr/repo/FORMAT.md`` (which objects there are, what they hold and in which order they are written).
"""

__version__ = "0.1.0"
