# ecgstudy: `make study` is all a newcomer types. Works with GNU make 3.81 (macOS) and later.
PROFILE ?= demo
CORES ?= 2
VENV := .venv
READY := $(VENV)/.ready
PY := $(VENV)/bin/python

.PHONY: help study test chaos fuzz lab bench lint lock clean

help:
	@echo "make study               the whole study on the built-in synthetic cohort (minutes)"
	@echo "make study PROFILE=real  the same on the real cohorts found in the data folder"
	@echo "make study PROFILE=mine  the same on records of your own"
	@echo "make test                the test suite"
	@echo "make chaos               kill every stage of the demo three times and compare (most of an hour)"
	@echo "make fuzz                read every spoilt folder, and all that the study leaves of planted names"
	@echo "make lab                 open the notebooks in JupyterLab"
	@echo "make bench               speed measurements"
	@echo "make lint                style and type-hint checks"
	@echo "make clean               remove the environment and the demo results"

study: $(READY)
	@exec env ECGSTUDY_PARENT=$$PPID $(PY) -m ecgstudy study '$(PROFILE)' --cores '$(CORES)'

test: $(READY)
	@$(PY) -m pytest -n 2 --dist loadfile

chaos: $(READY)
	@$(PY) tests/chaos.py

fuzz: $(READY)
	@ECGSTUDY_FUZZ=all $(PY) -m pytest tests/test_fuzz.py tests/test_privacy.py

lab: $(READY)
	@$(PY) -m jupyterlab notebooks

bench: $(READY)
	@$(PY) tests/benchmarks/run_all.py

lint: $(READY)
	@$(PY) -m ruff check . && $(PY) -m ruff format --check . && $(PY) -m pre_commit run --all-files

# maintainers: write down the exact versions of an environment that passed the tests
lock: $(READY)
	@{ echo "# exact versions that passed the tests together; made by 'make lock'"; \
	  $(PY) -m pip freeze --all --exclude-editable | grep -Ev '^(pip|uv)==' | sed 's/+cpu$$//'; } > requirements.lock

clean:
	@rm -rf $(VENV) .snakemake results/demo data/cache/demo

# The newest suitable interpreter; PYTHON=... overrides. Some systems ship Python without ensurepip:
# then the environment is made without pip and the system's pip, where there is one, fills it.
# uv chooses PyTorch's build for the machine: without an NVIDIA GPU no GPU library is fetched; where uv cannot, pip installs.
# An interrupted installation leaves no stamp, so the next call starts it again.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3 python; do \
  command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null \
  && { echo $$p; break; }; done)

$(READY): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11, 3.12 or 3.13 was not found; install it (Debian/Ubuntu: sudo apt install python3 python3-venv; macOS: brew install python@3.12) and type make again." >&2; exit 1; }
	@echo "Setting up $(VENV) (a few minutes, once)..."
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV) >/dev/null 2>&1 \
	  || { rm -rf $(VENV) && $(PYTHON) -m venv --without-pip $(VENV) && $(PYTHON) -m pip --quiet --python $(PY) install pip 2>/dev/null; } \
	  || { rm -rf $(VENV); echo "$(PYTHON) cannot make environments; install its venv package (Debian/Ubuntu: sudo apt install python3-venv) and type make again." >&2; exit 1; }
	@{ $(PY) -m pip install --quiet --disable-pip-version-check 'uv>=0.8,<1' \
	  && $(PY) -m uv pip install --quiet --python $(PY) --torch-backend=auto -r requirements.lock; } 2>/dev/null \
	  || $(PY) -m pip install --quiet --disable-pip-version-check -r requirements.lock
	@$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $(READY)
