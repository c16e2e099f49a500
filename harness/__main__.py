"""`python -m harness`: the command line without its script."""

import sys


def main() -> None:
    """Run the command line; Ctrl-C while it is imported, which takes a second, ends it without a traceback."""
    try:
        from harness.cli import app
    except KeyboardInterrupt:
        sys.exit(130)
    app.main()


if __name__ == "__main__":
    main()
