"""The command line: the only layer that prints and exits.

``main`` is the entry point and imports next to nothing; ``app`` builds the click commands of ``catalog``, each loaded
when it is used; ``command`` makes a command of a small function; ``runner`` runs it and owns output and exit codes.
"""
