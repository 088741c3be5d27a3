# `make demo`, `make real-video` (needs ffmpeg), `make test`, `make benchmarks`, `make setup`: each does everything.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
export TF_CPP_MIN_LOG_LEVEL ?= 3

BENCHMARKS = graph training inference convolution_floor pipeline sync_mnist streaming scaling
RESULTS = build/benchmarks

.PHONY: demo real-video test lint setup benchmarks clean

demo: setup
	$(BIN)/python train.py
	$(BIN)/python eval.py --model_dir=runs/demo --report --export_dir=runs/demo/export

real-video: setup
	$(BIN)/python examples/camera_moves.py --out_dir=data/real_video/videos
	$(BIN)/python -m datasets.video_folder --videos=data/real_video/videos --out_dir=data/real_video --add_reversed
	$(BIN)/python train.py --flagfile=configs/real_video.flags
	$(BIN)/python eval.py --model_dir=runs/real_video --num_eval_spatial_clips=3 --num_eval_temporal_clips=2 \
		--export_dir=runs/real_video/export

test: setup
	$(BIN)/ruff check .
	$(BIN)/python -m pytest

lint: setup
	$(BIN)/ruff check .

# On a machine that does nothing else; the page docs/performance.md takes the tables.
benchmarks: setup
	mkdir -p $(RESULTS)
	set -e; for name in $(BENCHMARKS); do echo "== $$name"; extra=; \
		if [ $$name = scaling ]; then extra=--out=docs/scaling.png; fi; \
		$(BIN)/python -m benchmarks.$$name --json=$(RESULTS)/$$name.json $$extra; done
	$(BIN)/python -m benchmarks.page $(BENCHMARKS:%=$(RESULTS)/%.json)

setup: $(VENV)/.complete

$(VENV)/.complete: requirements.txt setup.sh
	@PYTHON="$(PYTHON)" VENV="$(VENV)" sh setup.sh

clean:
	rm -rf $(VENV) data/demo runs/demo data/real_video runs/real_video
