# `make demo`, `make real-video` (needs ffmpeg), `make test`, `make setup`: each does everything on a fresh machine.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
export TF_CPP_MIN_LOG_LEVEL ?= 3

.PHONY: demo real-video test lint setup clean

demo: setup
	$(BIN)/python train.py
	$(BIN)/python eval.py --report --export_dir=runs/demo/export

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

setup: $(VENV)/.complete

$(VENV)/.complete: requirements.txt setup.sh
	@PYTHON="$(PYTHON)" VENV="$(VENV)" sh setup.sh

clean:
	rm -rf $(VENV) data/demo runs/demo data/real_video runs/real_video
