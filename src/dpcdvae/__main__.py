"""``python -m dpcdvae`` and the command ``dpcdvae``."""

import sys


def main() -> int:
    """The command line; returns the exit code, also where Ctrl-C comes while it is imported."""
    try:
        from dpcdvae.cli import main as run

        return run()
    except KeyboardInterrupt:
        print("dpcdvae: stopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
