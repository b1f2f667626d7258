"""The command line: flags, tables, exit status."""

try:
    import layerflow  # noqa: F401
except ImportError as error:  # a folder hides one of its packages
    raise SystemExit(f"layerflow: {error}") from None
