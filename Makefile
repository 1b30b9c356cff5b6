# make install   a virtual environment in .venv with everything the project needs
# make demo      the main job on a clip (INPUT=my.mp4 BG=office.png for your own)
# make test      every check and test
#
# TORCH chooses PyTorch's build; on a machine with an NVIDIA GPU the CUDA build is what pip takes by itself.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
HAS_GPU := $(shell command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L >/dev/null 2>&1 && echo 1)
# Without a GPU: the CPU build (a plain `torch` pulls gigabytes of CUDA).
TORCH ?= $(if $(HAS_GPU),torch==2.11.0,torch==2.13.0)

# Spinning OpenMP threads stall a machine whose cores are busy.
export OMP_WAIT_POLICY = passive

INPUT ?= demo/sample.mp4
BG ?= demo/room.png

.PHONY: install demo test lint clean

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml Makefile
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip setuptools wheel
	$(BIN)/pip install --quiet "$(TORCH)"
	$(BIN)/pip install --quiet --no-build-isolation --editable ".[dev]"
	touch $@

demo: install
	mkdir -p demo
	$(if $(filter demo/sample.mp4,$(INPUT)),$(BIN)/python demos/sample_clip.py demo/sample.mp4)
	$(if $(filter demo/room.png,$(BG)),$(BIN)/python demos/room.py demo/room.png)
	$(BIN)/banet-stream "$(INPUT)" -o demo/out.mp4 --bg "$(BG)" --stats --overwrite
	@echo "Look at demo/out.mp4"

test: install lint
	$(BIN)/python -m pytest

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) demo build *.egg-info
