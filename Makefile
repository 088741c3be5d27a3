# `make demo`, `make test`, `make setup`: each does everything on a fresh machine.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
export TF_CPP_MIN_LOG_LEVEL ?= 3

.PHONY: demo test lint setup clean

demo: setup
	$(BIN)/python train.py
	$(BIN)/python eval.py --report --export_dir=runs/demo/export

test: setup
	$(BIN)/ruff check .
	$(BIN)/python -m pytest

lint: setup
	$(BIN)/ruff check .

setup: $(VENV)/.complete

$(VENV)/.complete: requirements.txt setup.sh
	@PYTHON="$(PYTHON)" VENV="$(VENV)" sh setup.sh

clean:
	rm -rf $(VENV) data/demo runs/demo
