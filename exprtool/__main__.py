"""``python -m exprtool``."""

from exprtool.cli.main import run

run()
