"""pitr: backup and point-in-time recovery for PostgreSQL.

Layers, top down (checked by import-linter; the arrows of imports point down only, siblings do not see one another)::

    cli                                   click, rendering, exit codes; nothing else prints or exits
    api                                   the same operations as typed functions, for other programs
    base  archive  restore  status        engines: one frozen request in, one frozen result out
    repo  wal                             names, manifests, maps, catalog, leases; pages, records, transactions
    store  codec  pg                      names to bytes; bytes to bytes; every fact about PostgreSQL
    config                                typed settings with their origins
    core                                  errors, events, clock, units, files, pool, processes, secrets

What lies in a repository is specified in ``pitr/codec/FORMAT.md`` (how an object is framed and sealed) and
``pitr/repo/FORMAT.md`` (which objects there are, what they hold and in which order they are written).
"""

__version__ = "0.1.0"
