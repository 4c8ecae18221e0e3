"""`python -m harness` is `quantgate`."""

from harness.cli import main

if __name__ == "__main__":
    main()
