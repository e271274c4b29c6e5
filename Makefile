# make demo    crystals within minutes: install, generate with the bundled model, evaluate, draw
# make test    the whole test suite
# make lint    ruff, mypy, and the documentation with its links
# make docs    the documentation as a site, in site/index.html
# make test-minimum   a selection of tests with the lowest versions that pyproject.toml allows. Installs 5 GB; without
#              CUDA with PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu
# make bench   speed and memory of this machine; OPTIONS=--quick for a short look
#
# Each creates the virtual environment it needs; PYTHON=python3.12 chooses the interpreter.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WORKERS ?= 2

.PHONY: demo test test-minimum lint docs bench clean

demo: $(VENV)/.installed
	@$(BIN)/dpcdvae demo --out demo

test: $(VENV)/.installed-dev
	@OMP_NUM_THREADS=1 $(BIN)/pytest -q -n $(WORKERS) --dist loadgroup

MINIMUM := .venv-minimum
MINIMUM_TESTS := $(patsubst %,tests/test_%.py,store result_cache io lattice graph picture validity stored_checkpoints)
test-minimum:
	@test -x $(MINIMUM)/bin/python || $(PYTHON) -m venv $(MINIMUM)
	@$(MINIMUM)/bin/python tests/lowest_versions.py > $(MINIMUM)/requirements.txt
	@$(MINIMUM)/bin/python -m pip install -q -r $(MINIMUM)/requirements.txt
	@$(MINIMUM)/bin/python -m pip install -q --no-deps .
	@OMP_NUM_THREADS=1 $(MINIMUM)/bin/pytest -q $(MINIMUM_TESTS)

lint: $(VENV)/.installed-dev
	@$(BIN)/ruff check src tests benchmarks docs examples
	@$(BIN)/ruff format --check src tests benchmarks docs examples
	@$(BIN)/mypy
	@$(MAKE) --no-print-directory docs

# Strict: a link that leads nowhere is an error. The variable silences an advertisement.
docs: $(VENV)/.installed-dev
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

bench: $(VENV)/.installed-dev
	@$(BIN)/python benchmarks/run.py $(OPTIONS)

clean:
	rm -rf $(VENV) $(MINIMUM) demo site .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/.installed: TARGET = .
$(VENV)/.installed-dev: TARGET = .[dev]

# A stamp is as old as the last installation; a change of what is required installs again.
$(VENV)/.installed $(VENV)/.installed-dev: pyproject.toml constraints.txt
	@echo "installing $(TARGET) into $(VENV) with $(PYTHON): some minutes, log in $(VENV)/install.log"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -c constraints.txt -e '$(TARGET)' > $(VENV)/install.log 2>&1 \
	  || { tail -5 $(VENV)/install.log >&2; exit 1; }
	@touch $@
