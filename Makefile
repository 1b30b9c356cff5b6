# make install   a virtual environment in .venv with everything the project needs
# make demo      the main job on a clip (INPUT=my.mp4 BG=office.png for your own)
# make test      every check and test
# make test-packages   Debian packages that some tests need (RTSP server, ffmpeg, virtual screen); as root
#
# TORCH names PyTorch's version. On Linux the public index has its CUDA build; TORCH_INDEX=URL takes it from
# another index, such as PyTorch's own of CPU builds (README, "CPU or GPU").

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Pinned: an open range would follow every release. Before the rest, so that nothing else chooses it.
TORCH ?= torch==2.13.0
TORCH_INDEX ?=

# Spinning OpenMP threads stall a machine whose cores are busy.
export OMP_WAIT_POLICY = passive

INPUT ?= demo/sample.mp4
BG ?= demo/room.png

# GStreamer's RTSP server, a program that serves RTMP, and a screen for the preview's window.
TEST_PACKAGES := chromium gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad \
	gstreamer1.0-plugins-ugly gstreamer1.0-libav gstreamer1.0-rtsp gir1.2-gst-rtsp-server-1.0 python3-gi \
	ffmpeg xvfb xauth

# Tests that mostly wait: for cameras, networks, a browser.
WAITING := tests/test_live*.py tests/test_demo*.py

.PHONY: install demo test waiting computing test-packages lint clean

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml setup.py Makefile $(wildcard csrc/*)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip setuptools wheel ninja
	$(BIN)/pip install --quiet $(if $(TORCH_INDEX),--index-url "$(TORCH_INDEX)") "$(TORCH)"
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/pip install --quiet --no-build-isolation --editable ".[dev]"
	touch $@

demo: install
	mkdir -p demo
	$(if $(filter demo/sample.mp4,$(INPUT)),$(BIN)/python demos/sample_clip.py demo/sample.mp4)
	$(if $(filter demo/room.png,$(BG)),$(BIN)/python demos/room.py demo/room.png)
	$(BIN)/banet-stream "$(INPUT)" -o demo/out.mp4 --bg "$(BG)" --stats --overwrite
	@echo "Look at demo/out.mp4"

# Both at once, as two cores are enough for that; those that compute let those go first that time something.
test: install lint
	$(MAKE) --no-print-directory -j2 waiting computing

waiting:
	$(BIN)/python -m pytest $(WAITING)

computing:
	nice -n 10 $(BIN)/python -m pytest $(WAITING:%='--ignore-glob=%')

test-packages:
	apt-get update -q
	DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends $(TEST_PACKAGES)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) demo build *.egg-info
