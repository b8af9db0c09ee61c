"""`python -m services.cli`: where the script `errand` is not on the PATH."""

from services.cli import main

if __name__ == "__main__":
    main()
