"""`python -m craft` is the command `craft`."""

from craft.cli import entry

if __name__ == "__main__":
    entry()
