# `make demo`, `make real-video`, `make test`, `make test-fast`, `make test-pinned`, `make docs`, `make benchmarks`,
# `make chaos`, `make fuzz`, `make setup`: each does everything.
# PYTHON: the newest that suits; `make setup PYTHON=python3.12` (or a path) takes another.
PYTHON ?=
VENV ?= .venv
PINNED ?= .venv-pinned
VENV_DOCS ?= .venv-docs
VENV_SUPPLY ?= .venv-supply
BIN = $(VENV)/bin
# A test process for each core, of which each grows to some 8 GB; the tests of a file stay together, and share what is slow.
PARALLEL ?= -n auto --maxprocesses=4 --dist=loadfile
export TF_CPP_MIN_LOG_LEVEL ?= 3

BENCHMARKS = graph training inference convolution_floor pipeline sync_mnist streaming scaling
RESULTS = build/benchmarks
FUZZED = array checkpoint clip config digits grpc_answer header labels list manifest note pickle picture release_config \
	rest_answer saved_model shard state video weights
FUZZ_SECONDS ?= 600

.PHONY: demo real-video test test-fast test-pinned lint setup benchmarks chaos fuzz docs requirements audit clean

demo: setup
	@echo "demo, 1 of 2: draws 42,000 clips and trains 1,500 steps on them, or goes on where it was; four to six minutes on two cores"
	$(BIN)/python train.py
	@echo "demo, 2 of 2: evaluates, writes a report and an exported model; some half a minute"
	$(BIN)/python eval.py --model_dir=runs/demo --report --export_dir=runs/demo/export

real-video: setup
	$(BIN)/python examples/camera_moves.py --out_dir=data/real_video/videos
	$(BIN)/python -m datasets.video_folder --videos=data/real_video/videos --out_dir=data/real_video --add_reversed
	$(BIN)/python train.py --flagfile=configs/real_video.flags
	$(BIN)/python eval.py --model_dir=runs/real_video --num_eval_spatial_clips=3 --num_eval_temporal_clips=2 \
		--export_dir=runs/real_video/export

test: setup
	$(BIN)/ruff check .
	$(BIN)/python -m pytest $(PARALLEL)

# What is quick enough to run after every change, in some minutes.
test-fast: setup
	$(BIN)/ruff check .
	$(BIN)/python -m pytest $(PARALLEL) -m "not slow"

# What must hold on the pinned stack too (Python 3.9 to 3.11, TensorFlow 2.15), in an environment of its own.
test-pinned:
	@VENV=$(PINNED) STACK=pinned sh setup.sh
	$(PINNED)/bin/python -m pytest $(PARALLEL) -m both_stacks

lint: setup
	$(BIN)/ruff check .

# On a machine that does nothing else; the page docs/performance.md takes the tables.
benchmarks: setup
	mkdir -p $(RESULTS)
	set -e; for name in $(BENCHMARKS); do echo "== $$name"; extra=; \
		if [ $$name = scaling ]; then extra=--out=docs/scaling.png; fi; \
		$(BIN)/python -m benchmarks.$$name --json=$(RESULTS)/$$name.json $$extra; done
	$(BIN)/python -m benchmarks.page $(BENCHMARKS:%=$(RESULTS)/%.json)

# Kills, damages, fills disks, jumps clocks: some half an hour on two cores. All of it needs root and `pip install
# libfaketime`; the table says what was not tried for want of them. The page docs/guarantees.md takes the table.
chaos: setup
	mkdir -p $(RESULTS)
	$(BIN)/python -m benchmarks.chaos --json=$(RESULTS)/chaos.json; ended=$$?; \
		test $$ended -gt 1 || $(BIN)/python -m benchmarks.page --page=docs/guarantees.md $(RESULTS)/chaos.json; exit $$ended

# Random bytes against every gate for bytes of others, ten minutes each; needs Linux on x86-64, Python 3.11 to 3.13.
fuzz: setup
	$(BIN)/python -m pip install --quiet --target=build/atheris --upgrade --requirement benchmarks/faults/requirements.txt
	set -e; for target in $(FUZZED); do echo "== $$target"; \
		PYTHONPATH=build/atheris $(BIN)/python -m benchmarks.fuzz --target=$$target --seconds=$(FUZZ_SECONDS); done

# The site, strictly: a broken link or an undocumented public name fails. No TensorFlow in its environment.
docs: $(VENV_DOCS)/.complete
	$(VENV_DOCS)/bin/python -m mkdocs build --strict

$(VENV_DOCS)/.complete: docs/requirements.txt
	$(or $(PYTHON),python3) -m venv $(VENV_DOCS)
	$(VENV_DOCS)/bin/python -m pip install --quiet --upgrade pip
	$(VENV_DOCS)/bin/python -m pip install --quiet --requirement docs/requirements.txt
	touch $(VENV_DOCS)/.complete

# requirements.txt from requirements.in: every package, with the hashes of all its files on the index.
requirements: $(VENV_SUPPLY)/.complete
	$(VENV_SUPPLY)/bin/uv pip compile --quiet --universal --python-version=3.9 --generate-hashes --no-emit-index-url \
		--no-emit-find-links --custom-compile-command="make requirements" --output-file=requirements.txt requirements.in

# What is known against the installed packages of either stack; fails where something is, or where it is not known.
audit: setup $(VENV_SUPPLY)/.complete
	@VENV=$(PINNED) STACK=pinned sh setup.sh
	set -e; for environment in $(VENV) $(PINNED); do \
		$(VENV_SUPPLY)/bin/pip-audit --strict --path $$environment/lib/python3*/site-packages; done

$(VENV_SUPPLY)/.complete:
	$(or $(PYTHON),python3) -m venv $(VENV_SUPPLY)
	$(VENV_SUPPLY)/bin/python -m pip install --quiet uv pip-audit
	touch $(VENV_SUPPLY)/.complete

setup:
	@PYTHON="$(PYTHON)" VENV="$(VENV)" sh setup.sh

clean:
	rm -rf $(VENV) $(PINNED) $(VENV_DOCS) $(VENV_SUPPLY) build/site data/demo runs/demo data/real_video runs/real_video
