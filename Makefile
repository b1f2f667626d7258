# One road in: `make run` and `make test` set up everything they need.
VENV := .venv
PY := $(VENV)/bin/python
UV := $(shell command -v uv 2>/dev/null)
PYTHON ?= python3

.DEFAULT_GOAL := help
.PHONY: help setup wheel ray cloud hub litert onnx sign mlflow wandb dev run docs test drill-tests check lint ui tensorboard deploy drill bench bench-accuracy bench-few bench-gc bench-calibration bench-gate bench-layers bench-photos bench-scale bench-scaling bench-serving pictures lock clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

setup: $(VENV)/.ready ## make the pinned environment (.venv)

ray: $(VENV)/.ray ## add Ray to it: training.workers, and sweeps on a cluster

cloud: $(VENV)/.cloud ## add obstore to it: LAYERFLOW_REMOTE, a store in a bucket

hub: $(VENV)/.hub ## add KerasHub to it: model.name hub:…

litert: $(VENV)/.litert ## add the runtime of LiteRT to it: export.formats litert, litert_int8

onnx: $(VENV)/.onnx ## add the converter and the runtime of ONNX to it: export.formats onnx

sign: $(VENV)/.sign ## add OpenSSF model signing to it: registry.sign, and verify with a key

mlflow: $(VENV)/.mlflow ## add MLflow's client to it: extend.trackers mlflow

wandb: $(VENV)/.wandb ## add Weights & Biases to it: extend.trackers wandb

dev: ray hub litert onnx sign mlflow wandb $(VENV)/.docs ## add all that the tests need

# Bytecode is compiled at installation: it halves the time of the first `import tensorflow`.
ifdef UV
define install
	@echo "Installing the pinned environment into $(VENV), about 1 GB: it takes a minute or two the first time."
	test -x $(PY) || $(UV) venv --quiet --python $(PYTHON) $(VENV)
	VIRTUAL_ENV=$(abspath $(VENV)) $(UV) pip install --compile-bytecode --require-hashes -r $(1)
	VIRTUAL_ENV=$(abspath $(VENV)) $(UV) pip install --quiet --no-deps --no-build-isolation --editable .
endef
else
# The lock as constraints too: an older pip looks past a pin where another package asks for the pinned one with an extra.
define install
	@echo "Installing the pinned environment into $(VENV), about 1 GB: it takes several minutes the first time."
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip --version >/dev/null 2>&1 || $(PY) -m ensurepip # an environment that uv made has no pip
	$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes -r $(1) -c $(1)
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
endef
endif

$(VENV)/.ready: requirements.lock pyproject.toml
	$(call install,requirements.lock)
	touch $@

# All that .ready has, Ray, and obstore.
$(VENV)/.ray: requirements-ray.lock pyproject.toml
	$(call install,requirements-ray.lock)
	touch $(VENV)/.ready $@

# What the lock of one extra adds, or that of the group docs.
$(VENV)/.cloud $(VENV)/.hub $(VENV)/.litert $(VENV)/.onnx $(VENV)/.sign $(VENV)/.mlflow $(VENV)/.wandb $(VENV)/.docs: $(VENV)/.%: $(VENV)/.ready requirements-%.lock
	$(if $(UV),VIRTUAL_ENV=$(abspath $(VENV)) $(UV) pip,$(PY) -m pip) install --quiet --no-deps --require-hashes -r requirements-$*.lock
	touch $@

run: setup ## retrain on the embedded digits: train, prove, publish
	$(VENV)/bin/layerflow retrain

docs: $(VENV)/.docs ## the documentation as a site, in site/
	$(PY) docs/site/build.py

test: dev ## the test suite, but for the long tests of `make drill-tests`
	$(PY) -m pytest -n 2 --dist loadfile --no-loadscope-reorder --durations=20 -m "not drill" # in the order of tests/conftest.py

drill-tests: dev ## the long tests: browsers, pools, Ray's lost workers, whole pipelines by two devices (twelve minutes)
	$(PY) -m pytest -n 2 --dist loadfile --no-loadscope-reorder --durations=20 -m drill

check: lint ## ruff, mypy, and the tests that start no process and take no seconds: in about a minute
	$(PY) -m pytest -n 2 -q -m "not process and not slow and not drill"

lint: setup ## ruff and mypy
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

drill: drill-tests ## nights that go wrong, training killed 100 times, publishing and collecting 300 times each, two machines with one bucket 100 times, 10,000 fuzzed inputs, guards taken out (hours)
	$(PY) benchmarks/nights.py
	$(PY) benchmarks/growing_folder.py 30
	$(PY) benchmarks/drill.py 100
	$(PY) benchmarks/drill.py 100 0 recipe
	$(PY) benchmarks/drill.py 20 0 photographs
	$(PY) benchmarks/publish_drill.py 300
	$(PY) benchmarks/gc_drill.py 334
	$(PY) benchmarks/remote_drill.py 100 100
	LAYERFLOW_HISTORIES=1000 $(PY) -m pytest -q tests/layerflow/collection/test_any_order.py
	LAYERFLOW_MODELS=100 $(PY) -m pytest -q tests/layerflow/training/test_differential.py tests/layerflow/models/test_families.py tests/layerflow/models/test_hub.py
	LAYERFLOW_FUZZ=10000 $(PY) -m pytest -q tests/attacks/test_fuzzing.py
	$(PY) benchmarks/mutations.py

bench: setup ## seconds an epoch and of a whole run (PyTorch and JAX take part where installed)
	$(PY) benchmarks/training.py
	$(PY) benchmarks/overhead.py

bench-accuracy: setup ## how good the networks become, over three seeds (40 minutes on two cores)
	$(PY) benchmarks/accuracy.py 3

bench-few: setup ## what given weights, class weights and augmentation are worth on few images (20 minutes)
	$(PY) benchmarks/transfer.py
	$(PY) benchmarks/imbalance.py

bench-gc: setup ## how long a collection over 100,000 artifacts takes, and how large a store is over a year of nights
	$(PY) benchmarks/collecting.py
	$(PY) benchmarks/year.py

bench-calibration: setup ## what a temperature and a threshold are worth on MNIST and Fashion-MNIST (5 minutes)
	$(PY) benchmarks/calibration.py

bench-gate: setup ## how often the gate publishes better and worse models, and a year of slow decline (simulated)
	$(PY) benchmarks/gate.py 1000 docs

bench-layers: setup ## each layer against its counterpart in keras.layers
	$(PY) benchmarks/layer_speed.py

bench-photos: setup ## reading photographs, against Keras, listing 100,000 files, the pixels and the speed of predict, and epochs of a MobileNet (half an hour)
	$(PY) benchmarks/photos.py
	$(PY) benchmarks/next_night.py
	$(PY) -m benchmarks.image_skew
	$(PY) -m benchmarks.predicting
	$(PY) benchmarks/photo_epochs.py

bench-serving: setup ## requests to `layerflow try` while a new version takes over (two minutes)
	$(PY) benchmarks/switching.py

pictures: setup ## the pictures of pages in docs/, with Chromium (ten minutes)
	$(PY) -m benchmarks.pictures

bench-scale: setup ## preparing and training from MNIST once to ten times: seconds an image, peak memory
	$(PY) benchmarks/scale.py

bench-scaling: setup ## one worker and two, and what is to be expected of up to 64 (two minutes)
	$(PY) benchmarks/scaling.py

wheel: setup ## a package of the project in dist/, to install elsewhere
	mkdir -p dist
	$(PY) -c "from setuptools.build_meta import build_wheel; print(build_wheel('dist'))"

ui: setup ## a local Prefect server with its UI (http://127.0.0.1:4200, or PORT=…)
	$(VENV)/bin/layerflow ui $(if $(PORT),--port $(PORT))

tensorboard: setup ## the trainings of the store in TensorBoard (http://localhost:6006, or PORT=…)
	$(VENV)/bin/tensorboard $(if $(PORT),--port $(PORT)) --logdir $${LAYERFLOW_STORE:-store}/tensorboard

deploy: setup ## the work pool, the deployments of prefect.yaml and the automations of automations.yaml
	$(VENV)/bin/layerflow deploy

lock: ## pin the environment anew (needs uv)
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	  --quiet --upgrade --group dev --extra ray --extra cloud --output-file requirements-ray.lock pyproject.toml
	sed 's/ \\$$//; /--hash/d' requirements-ray.lock > $(VENV)/constraints.txt # the same versions without the extras
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	  --quiet --group dev --constraints $(VENV)/constraints.txt --output-file requirements.lock pyproject.toml
	for extra in kubernetes cuda cloud hub litert onnx sign mlflow wandb docs; do \
	  case $$extra in docs) kind=group ;; *) kind=extra ;; esac; \
	  uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	    --quiet --group dev --$$kind $$extra --constraints $(VENV)/constraints.txt \
	    $$(sed -n 's/==.*//; s/^[a-z]/--no-emit-package &/p' requirements.lock) \
	    --output-file requirements-$$extra.lock pyproject.toml || exit 1; \
	done # what an extra adds to requirements.lock, and no more

clean: ## remove the environment and caches (never the store)
	rm -rf $(VENV) build site *.egg-info .pytest_cache .ruff_cache .mypy_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
