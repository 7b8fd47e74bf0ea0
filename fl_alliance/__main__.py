"""`python -m fl_alliance` is `fl-alliance`."""

from fl_alliance.cli import main

main()
