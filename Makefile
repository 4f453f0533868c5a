# Thin on purpose: each target is what you would type yourself. `make PYTHON=python3.12 setup` picks
# the interpreter; VENV=dir another environment.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
READY = $(VENV)/.ready
WHEELHOUSE ?= wheelhouse
HAVE ?=
TEST_PROCESSES ?= 2

.PHONY: setup quickstart test test-slow lint format bench wheelhouse clean
setup: $(READY)

$(READY): setup.cfg setup.py pyproject.toml constraints.txt $(wildcard third_party/detectron2/*.* third_party/detectron2/*/*)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "$(PYTHON) is Python " + sys.version.split()[0] + "; mask_rcnn_ext needs 3.11 or newer: make PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev]'
	$(BIN)/python third_party/has_foreign_detectron2.py || $(BIN)/python -m pip install -q -c constraints.txt ./third_party/detectron2
	@touch $(READY)

quickstart: setup
	$(BIN)/mask-rcnn-ext quickstart

test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile

test-slow: setup
	$(BIN)/python -m pytest -m slow

lint: setup
	$(BIN)/ruff format --check --diff . && $(BIN)/ruff check . && $(BIN)/mypy

format: setup
	$(BIN)/ruff format . && $(BIN)/ruff check --fix .

bench: setup
	$(BIN)/mask-rcnn-ext bench roi

wheelhouse: setup
	$(BIN)/python third_party/wheelhouse.py --python $(if $(filter python3,$(PYTHON)),3.12,$(PYTHON)) --out $(WHEELHOUSE) --have "$(HAVE)"

clean:
	rm -rf build .pytest_cache .ruff_cache .mypy_cache .hypothesis
