"""`python -m holdfast_server.cli`: the command line without its script."""

from holdfast_server.cli import main

main()
