"""The browser demo, as ``banet-stream demo`` opens it; the same options.

python demos/gradio_app.py
"""

from __future__ import annotations

import sys

from banet_stream.demo.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
