"""`python -m exporter` is the command."""

from exporter.app.cli import main

main()
