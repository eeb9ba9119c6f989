"""`python -m tools.bench`."""

from tools.bench.command import main

if __name__ == "__main__":
    main()
