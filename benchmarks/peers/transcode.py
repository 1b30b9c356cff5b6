"""The limit: decode and encode, nothing between. transcode.py IN OUT"""

from common import arguments, run

if __name__ == "__main__":
    source, target, *_ = arguments("transcode.py IN OUT")
    run(source, target, lambda frame: frame)
