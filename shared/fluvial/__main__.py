"""`python -m fluvial`."""

from fluvial.cli.main import main

main(prog_name="fluvial")
