"""`python -m harness`: the command line without its script."""

from harness.cli.app import main

if __name__ == "__main__":
    main()
