# `make benchmark` and `make test` set everything up first; nothing is done twice.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready

.PHONY: benchmark test test-all speed lint wheel docs clean

# Trains, scores and ranks the grid `quick`; what is in runs/quick already is not trained again.
benchmark: $(READY)
	$(BIN)/aebench run quick

test: $(READY)
	$(BIN)/python -m pytest -q -n 2 --dist worksteal

test-all: $(READY)
	$(BIN)/python -m pytest -q -n 2 --dist worksteal -m ""

# Prints what takes how long, side by side with what it replaces; docs/performance.md has the last.
speed: $(READY)
	$(BIN)/python -m aebench.benchmark.speed

# The types are checked through a folder called like the package, as it is installed.
lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	mkdir -p build/types/aebench
	ln -sfn $(addprefix $(CURDIR)/,__init__.py plugins.py seeds.py datasets models benchmark) \
		build/types/aebench/
	cd build/types && ../../$(BIN)/mypy --config-file ../../pyproject.toml

# Builds the wheel and checks that it holds every module, grid and template of the tree.
wheel: $(READY)
	rm -rf build/wheel && $(BIN)/python -m build --wheel --outdir build/wheel . >build/wheel.log
	$(BIN)/python tests/check_wheel.py build/wheel/*.whl

# Writes the README's tables of what there is, and all that is published from the rows in results/.
docs: $(READY)
	$(BIN)/python -m aebench.benchmark.catalogue README.md
	$(BIN)/python -m aebench.benchmark.publish results

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable '.[dev,ray,slurm,wandb]'
	touch $(READY)

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
