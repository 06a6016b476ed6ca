# make demo   sets everything up, then runs the main job
# make test   sets everything up, then runs the tests and the checks
# make test-slow  whole models from transformers, which take minutes more
# make mutants  faults planted one by one, to see which no test notices; hours, and goes on where it stopped
# make check  lint, format, types and the layers of modules only
# make clean  removes what the others made
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
WHEEL_ENV := out/wheel-env

.PHONY: demo test test-slow mutants check wheel clean

demo: $(READY)
	rm -rf out/demo
	$(BIN)/dkm-deploy demo --out out/demo

# mypy and pip take one core each, the tests two.
test: $(READY)
	$(MAKE) -j2 check wheel
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 -m "not slow"

test-slow: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 -m slow

mutants: $(READY)
	$(BIN)/python -m benchmarks.mutants

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

# The wheel, built from the sdist, must work in an environment that has never seen this folder.
# Uncompiled: Python compiles the few modules that run, and pip would compile all of torch.
wheel: $(READY)
	rm -rf dist $(WHEEL_ENV)
	$(BIN)/python -m build --no-isolation --outdir dist .
	$(PYTHON) -m venv $(WHEEL_ENV)
	$(WHEEL_ENV)/bin/pip install --quiet --no-compile --constraint requirements-dev.txt "$$(ls dist/*.whl)[demo]"
	cd $(WHEEL_ENV) && bin/dkm-deploy --version && bin/dkm-deploy demo --out demo \
	  && bin/dkm-deploy inspect demo/model.onnx && bin/dkm-deploy inspect demo/model.mlpackage

# Compiled: where a warning is an error, as in the tests, other libraries' old strings do not compile.
$(READY): pyproject.toml requirements-dev.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v <= (3, 13) else \
	  "Python %d.%d will not do: dkm-deploy needs 3.11, 3.12 or 3.13. Try: make PYTHON=python3.12" % v)'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --disable-pip-version-check -r requirements-dev.txt
	$(BIN)/pip install --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

clean:
	rm -rf .venv out dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
