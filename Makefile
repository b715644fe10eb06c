# make demo: everything from nothing to a comparison on built-in data; make test: the same for the tests.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint clean

# What the program needs. torch first and by its pinned version, so that no other package chooses one. Where there is
# no GPU, PIP_INDEX_URL or PIP_FIND_LINKS can name a CPU build, which saves gigabytes.
.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt "torch==2.13.0"
	$(BIN)/pip install --quiet --constraint constraints.txt --editable .
	touch $@

# What the tests need beside that: the other libraries that the project is compared with, and its checkers.
.venv/ready-dev: .venv/ready
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

demo: .venv/ready
	$(BIN)/python main.py compare --name demo --norms bn,ws_gn --micro-batches 2,32 --seeds 1 --jobs 2 --dataset shapes \
	    --num-points 256 --k 10 --emb-dims 256 --epochs 6

test: .venv/ready-dev
	$(BIN)/python -m pytest -n auto --maxprocesses 8

lint: .venv/ready-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf .venv runs/demo
