"""`python -m fl_alliance.cli`."""

from fl_alliance.cli import main

if __name__ == "__main__":
    main()
