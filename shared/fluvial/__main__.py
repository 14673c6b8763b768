"""`python -m fluvial`."""

from fluvial.cli import main

main(prog_name="fluvial")
