"""``python -m banet_stream``."""

from .cli import main

if __name__ == "__main__":
    main()
