# make demo   sets everything up, then runs the main job
# make test   sets everything up, then runs the tests and the checks
# make test-slow  whole models from transformers, which take minutes more
# make mutants  faults planted one by one, to see which no test notices; hours, and goes on where it stopped
# make gallery  measures the files of gallery/ again
# make check  lint, format, types and the layers of modules only
# make clean  removes what the others made
PYTHON ?= python3
# What Python compiles is kept: packages are installed uncompiled, see below.
unexport PYTHONDONTWRITEBYTECODE
BIN := .venv/bin
READY := .venv/.ready
BUILD_ENV := out/build-env
BUILD_READY := $(BUILD_ENV)/.ready
WHEEL_ENV := out/wheel-env
WHEEL_READY := $(WHEEL_ENV)/.ready

.PHONY: demo test test-slow mutants gallery check wheel python clean

demo: $(READY)
	rm -rf out/demo
	$(BIN)/dkm-deploy demo --out out/demo

# The environment and its checks take one core, the wheel and its environment the other; the tests both.
test:
	$(MAKE) -j2 check wheel
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 -m "not slow"

test-slow: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 -m slow

mutants: $(READY)
	$(BIN)/python -m benchmarks.mutants

gallery: $(READY)
	$(BIN)/python -W ignore -m benchmarks.gallery

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

# The wheel, built from the sdist, must work in an environment that has never seen this folder: what it
# needs is installed from the list in pyproject.toml alone.
wheel: $(BUILD_READY) $(WHEEL_READY)
	rm -rf dist $(WHEEL_ENV)/demo
	$(BUILD_ENV)/bin/python -m build --no-isolation --outdir dist .
	$(WHEEL_ENV)/bin/pip install --quiet --no-compile --force-reinstall --no-deps dist/*.whl
	$(WHEEL_ENV)/bin/pip check --disable-pip-version-check
	cd $(WHEEL_ENV) && bin/dkm-deploy --version && OMP_NUM_THREADS=1 bin/dkm-deploy demo --out demo \
	  && bin/dkm-deploy inspect demo/model.onnx && bin/dkm-deploy inspect demo/model.mlpackage

$(BUILD_READY): pyproject.toml requirements-dev.txt | python
	$(PYTHON) -m venv $(BUILD_ENV)
	$(BUILD_ENV)/bin/pip install --quiet --disable-pip-version-check \
	  --constraint requirements-dev.txt build hatchling
	touch $@

# Uncompiled, here and below: Python compiles the few modules that run, and pip would compile all of torch.
$(WHEEL_READY): pyproject.toml requirements-dev.txt | python
	rm -rf $(WHEEL_ENV)
	$(PYTHON) -m venv $(WHEEL_ENV)
	$(PYTHON) -c 'import tomllib; p = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
	  print(*p["dependencies"], *p["optional-dependencies"]["demo"], sep="\n")' > $(WHEEL_ENV)/needs.txt
	$(WHEEL_ENV)/bin/pip install --quiet --no-compile --disable-pip-version-check \
	  --constraint requirements-dev.txt --requirement $(WHEEL_ENV)/needs.txt
	touch $@

$(READY): pyproject.toml requirements-dev.txt | python
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --no-compile --disable-pip-version-check -r requirements-dev.txt
	$(BIN)/pip install --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

python:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v <= (3, 13) else \
	  "Python %d.%d will not do: dkm-deploy needs 3.11, 3.12 or 3.13. Try: make PYTHON=python3.12" % v)'

clean:
	rm -rf .venv out dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
