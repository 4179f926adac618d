# Every target first makes the virtual environment it needs, from the locked requirements.
# Another interpreter: make test PYTHON=python3.12      Arguments: make test ARGS='-k expiry'
# Tests wait more than they work, so three processes run them; in one, for a debugger: WORKERS=0

PYTHON  ?= python3
ARGS    ?=
WORKERS ?= 3

VENV := .venv
BIN  := $(VENV)/bin
PIP  := $(BIN)/pip install --quiet --disable-pip-version-check
# One stamp per interpreter, so that a change of PYTHON makes the environment anew.
LOCKED    := $(VENV)/.locked-$(shell $(PYTHON) -c 'import platform; print(platform.python_version())' 2>/dev/null)
INSTALLED := $(VENV)/.installed

step = @printf '==> %s\n' '$(1)'

.PHONY: help demo test lint gen bench lock smoke clean
.DEFAULT_GOAL := help

help: ## list the targets
	@sed -n 's/^\([a-z]*\):[^#]*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 8

demo: $(INSTALLED) ## hundreds of agents race for a real catalogue; the verdict is the exit status
	@$(BIN)/holdfast demo $(ARGS)

test: $(INSTALLED) ## unit, contract, integration, robustness and end-to-end tests
	@$(BIN)/pytest --numprocesses $(WORKERS) --dist worksteal $(ARGS)

lint: $(INSTALLED) ## ruff, mypy --strict, buf
	$(call step,ruff check)
	@$(BIN)/ruff check
	$(call step,ruff format --check)
	@$(BIN)/ruff format --check
	$(call step,mypy --strict)
	@$(BIN)/mypy
	$(call step,buf lint)
	@$(BIN)/python proto/generate.py --lint

gen: $(INSTALLED) ## regenerate the stubs from proto/
	@$(BIN)/python proto/generate.py $(ARGS)

bench: $(INSTALLED) ## measure, and print the table
	@$(BIN)/python -m holdfast_bench $(ARGS)

smoke: $(INSTALLED) ## build the wheel and drive it from a clean environment, away from the checkout
	@.ci/smoke $(BIN)/python

compile := uv pip compile pyproject.toml --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --custom-compile-command 'make lock'
lock: $(LOCKED) ## pin the requirements again; ARGS=--upgrade takes newer versions
	$(call step,requirements/dev.txt)
	@$(BIN)/$(compile) --extra dev --output-file requirements/dev.txt $(ARGS)
	$(call step,requirements/server.txt)
	@$(BIN)/$(compile) --extra server --constraint requirements/dev.txt --output-file requirements/server.txt $(ARGS)

clean: ## remove the environment, builds and caches
	@rm -rf $(VENV) dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(INSTALLED): $(LOCKED) pyproject.toml
	$(call step,install holdfast from this checkout)
	@$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

# Debian keeps ensurepip, without which venv fails, in a package of its own.
$(LOCKED): requirements/dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo 'Holdfast needs Python 3.11 or newer; name one: make PYTHON=python3.12' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null && exit; \
	package=$$($(PYTHON) -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])'); \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  echo "==> apt-get install $$package"; \
	  apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y $$package >/dev/null; \
	else echo "$(PYTHON) cannot make a virtual environment. Run: sudo apt-get install $$package" >&2; exit 1; fi
	$(call step,$(VENV) from requirements/dev.txt (about a minute the first time))
	@$(PYTHON) -m venv --clear $(VENV)
	@$(PIP) --require-hashes --requirement requirements/dev.txt
	@touch $@
