# make demo: everything from nothing to a comparison on built-in data; make test: the same for the tests.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint clean

# torch first: another package's requirement would bring its CUDA build, gigabytes of it.
.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt "torch==2.13.0"
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

demo: .venv/ready
	$(BIN)/python main.py compare --norms bn,ws_gn --micro-batches 2 --name demo $(DEMO)

test: .venv/ready
	$(BIN)/python -m pytest

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf .venv runs/demo
