"""The command line: flags, tables, exit status."""
