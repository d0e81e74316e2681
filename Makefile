# Photofinish: `make demo` runs the whole arena here, `make test` checks all of it.
# Both need only Python 3.11 or newer, make and a shell.

PORT ?= 8000
VOTERS ?= 300
# Processes that share the tests; each starts a database of its own.
PROCESSES ?= 2

VENV := .venv
PY := $(VENV)/bin/python

# Python 3.11 first: it is the version that is tested most.
PYTHONS := python3.11 python3.12 python3.13 python3.14 python3 python

export PIP_DISABLE_PIP_VERSION_CHECK := 1

# $(call install,EXTRA): install an extra of pyproject.toml, unless $(VENV)/installed says that it is
# there as pyproject.toml and constraints.txt want it now.
define install
	@wanted=$$(sed '/^\[tool/,$$d' pyproject.toml | cat - constraints.txt | cksum) || exit 1; \
	stamp=$(VENV)/installed; \
	if ! grep -qxF "$(1) $$wanted" $$stamp 2>/dev/null; then \
		echo "Installing photofinish[$(1)] into $(VENV); the first time takes some minutes."; \
		quiet=--quiet; if [ -t 1 ]; then quiet=; fi; \
		$(PY) -m pip install $$quiet '.[$(1)]' -c constraints.txt || { \
			echo "Installing photofinish[$(1)] failed; pip says why above." >&2; exit 1; }; \
		{ grep -F " $$wanted" $$stamp 2>/dev/null; echo "$(1) $$wanted"; } > $$stamp.new; \
		mv $$stamp.new $$stamp; \
	fi
endef

# Checks print in the order in which they are listed, pytest last.
.NOTPARALLEL:

.PHONY: help demo manage admin test test-fast lint bench-site bench-ratings bench-coverage bench-gate bench-worker bench-gpu bench-blind venv venv-dev venv-bench chromium

help:
	@echo "make demo    run the arena at http://127.0.0.1:$(PORT)   (PORT=8000 VOTERS=300)"
	@echo "make admin   make an account for /admin/ of the running demo"
	@echo "make manage ARGS='load_catalogue'   a management command on the running demo"
	@echo "make test    set up what the tests need and run every check   (PROCESSES=2)"
	@echo "make test-fast  only the quick ones: no whole product, browser, torch"
	@echo "make lint    the checks that need no database and no browser"
	@echo "make bench-site  what the pages cost as votes grow"
	@echo "make bench-blind     can a voter's machine tell versions apart              (ARGS='--quick')"
	@echo "make bench-worker    what the worker's path adds to the bare model"
	@echo "make bench-gpu       what clips cost on this machine's GPU              (ARGS='--cpu')"
	@echo "make bench-ratings   how fast the ratings are, beside other libraries   (ARGS='--only i,ii')"
	@echo "make bench-coverage  how often the intervals hold the truth             (ARGS='--sets 500')"
	@echo "make bench-gate      how often an experiment's verdict errs             (ARGS='--quick')"
	@echo "make venv    only install what the demo needs"

demo: venv
	@exec $(PY) -m arena.local.demo --port $(PORT) --voters $(VOTERS)

manage: venv
	@exec $(PY) -m arena.local.demo manage $(ARGS)

admin: venv
	@exec $(PY) -m arena.local.demo manage createsuperuser

test: venv-dev chromium lint
	OMP_NUM_THREADS=1 $(PY) -m pytest -n $(PROCESSES)

# Without the whole product, the browser, torch and what is marked slow: for after each change.
test-fast: venv-dev
	OMP_NUM_THREADS=1 $(PY) -m pytest -n $(PROCESSES) --ignore tests/whole \
		-m "not browser and not torch and not slow and not full_size"

bench-site: venv-bench
	$(PY) -m bench.site

bench-ratings: venv-bench $(VENV)/peers/ready
	$(PY) -m bench.ratings $(ARGS)

# The libraries that it sets beside ours; one asks for another numpy, so they live apart.
$(VENV)/peers/ready: pyproject.toml
	$(PY) -m venv --clear $(VENV)/peers
	$(VENV)/peers/bin/python -m pip install --quiet '.[peers]'
	touch $@

bench-worker: venv-bench
	$(PY) -m bench.worker $(ARGS)

bench-gpu: venv-bench
	$(PY) -m bench.gpu $(ARGS)

bench-blind: venv-bench
	$(PY) -m bench.blind $(ARGS)

bench-coverage: venv-bench
	$(PY) -m bench.coverage $(ARGS)

bench-gate: venv-bench
	$(PY) -m bench.gate $(ARGS)

lint: venv-dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	@echo "$(VENV)/bin/djade --check templates"; \
	find templates -name '*.html' -exec $(VENV)/bin/djade --target-version 5.2 --check {} +
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

venv: $(PY)
	$(call install,local)

venv-dev: venv
	$(call install,dev)

venv-bench: venv
	$(call install,bench)

$(PY):
	@for name in $(PYTHONS); do \
		if "$$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
			found="$$name"; break; \
		fi; \
	done; \
	if [ -z "$$found" ]; then \
		echo "Photofinish needs Python 3.11 or newer and found none; install one and run make again." >&2; \
		exit 1; \
	fi; \
	echo "Making $(VENV) with $$($$found --version)."; \
	"$$found" -m venv --clear $(VENV) || { rm -f $(PY); \
		echo "$$found cannot make a virtual environment; install its venv package (on Debian: python3-venv)." >&2; \
		exit 1; }

# The browser tests drive the system's Chromium, or Playwright's own where there is none.
chromium: venv-dev
	@for name in chromium chromium-browser google-chrome google-chrome-stable; do \
		if command -v "$$name" >/dev/null 2>&1; then exit 0; fi; \
	done; \
	if [ "$$(id -u)" = 0 ] && grep -q '^ID=debian' /etc/os-release 2>/dev/null; then \
		echo "Installing Chromium for the browser tests."; \
		apt-get update -qq && \
		DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium; \
	else \
		$(PY) -m playwright install chromium; \
	fi
