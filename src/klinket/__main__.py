"""Run the klinket command: `python -m klinket`."""

from klinket.cli.main import main

if __name__ == "__main__":
    main()
