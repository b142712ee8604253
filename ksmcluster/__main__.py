"""`python -m ksmcluster`: runs the command where its script is not on the path."""

from ksmcluster.cli import main

if __name__ == "__main__":
    main()
