"""``python -m pitr``."""

from pitr.cli.main import entry

if __name__ == "__main__":
    entry()
