# make demo    crystals within minutes: install, generate with the bundled model, evaluate, draw
# make test    the whole test suite
# make lint    ruff and mypy
# make bench   speed and memory of this machine; OPTIONS=--quick for a short look
#
# Each creates the virtual environment it needs; PYTHON=python3.12 chooses the interpreter.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WORKERS ?= 2

.PHONY: demo test lint bench clean

demo: $(VENV)/.installed
	@$(BIN)/dpcdvae demo --out demo

test: $(VENV)/.installed-dev
	@OMP_NUM_THREADS=1 $(BIN)/pytest -q -n $(WORKERS) --dist loadgroup

lint: $(VENV)/.installed-dev
	@$(BIN)/ruff check src tests benchmarks
	@$(BIN)/ruff format --check src tests benchmarks
	@$(BIN)/mypy

bench: $(VENV)/.installed-dev
	@$(BIN)/python benchmarks/run.py $(OPTIONS)

clean:
	rm -rf $(VENV) demo .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/.installed: EXTRAS = evaluation
$(VENV)/.installed-dev: EXTRAS = dev

# A stamp is as old as the last installation; a change of what is required installs again.
$(VENV)/.installed $(VENV)/.installed-dev: pyproject.toml constraints.txt
	@echo "installing dpcdvae[$(EXTRAS)] into $(VENV) with $(PYTHON): some minutes, log in $(VENV)/install.log"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -c constraints.txt -e '.[$(EXTRAS)]' > $(VENV)/install.log 2>&1 \
	  || { tail -5 $(VENV)/install.log >&2; exit 1; }
	@touch $@
