"""Every fact about PostgreSQL 13 to 18: names, files, pages, versions, sessions, programs."""
