# make venv    set up .venv, start nothing
# make run     watch ./hot, write mattes to ./mattes (or as hotmatte.yaml says)
# make test    all tests
# make lint    format, lint, types, imports
# make check   what CI runs: lint, then tests with coverage
# make faults  the fault tests at full length: 20 000 photos, 200 kills
# make soak    HOURS=1 of random writers and faults, then every file is asked for
# make deb     a Debian package of everything, in dist/
# make bench   throughput and latency, with machine and date
# make format  put the source into shape
#
# Everything is installed into .venv, which may be deleted at any time. Needed: Python 3.11 or
# newer, make, and a package index. Another interpreter: make run PYTHON=/opt/python3.13/bin/python3

PYTHON := $(firstword $(foreach name,python3 python3.13 python3.12 python3.11,$(shell \
    $(name) -c 'import sys; print(sys.executable if sys.version_info >= (3, 11) else "")' 2>/dev/null)))
BIN := .venv/bin
# Images set it for programs that run once. Here a thousand processes would each compile what they import.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help venv run test lint check faults soak deb bench format again
.DELETE_ON_ERROR:

help:
	@sed -n 's/^# \{0,1\}//p;/^$$/q' Makefile

# A stamp for each set of extras: a second start asks no index. After an upgrade of the
# distribution the old interpreter is gone, or finds nothing: then everything is made anew.
READY := setup.cfg pyproject.toml deploy/bootstrap.py
ifeq ($(shell $(BIN)/python -c 'import pip; print(1)' 2>/dev/null),)
READY += again
endif
again:

.venv/ready-run: $(READY)
	@$(call set-up)

.venv/ready-test: $(READY)
	@$(call set-up,test)

define set-up
if [ -z "$(PYTHON)" ]; then \
    echo "hotmatte: needs Python 3.11 or newer; found: $$(python3 --version 2>&1 || true)" >&2; \
    echo "On Debian 12, Ubuntu 24.04 and later: apt install python3. Or: make PYTHON=/path/to/python3" >&2; \
    exit 1; \
fi; \
"$(PYTHON)" deploy/bootstrap.py .venv $(1) && touch $@
endef

venv: .venv/ready-run

# The lightest set-up that is there will do.
run: $(if $(wildcard .venv/ready-test),.venv/ready-test,.venv/ready-run)
	@$(BIN)/hotmatte run

# Most tests wait for processes more than they compute. A file stays in one process, with what its tests share.
TOGETHER := $(shell n=$$(($$(nproc) + 1)); echo $$((n < 6 ? n : 6)))
PYTEST := $(BIN)/pytest -n $(TOGETHER) --dist loadfile --no-loadscope-reorder

test: .venv/ready-test
	$(PYTEST)

lint: .venv/ready-test
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint
	$(PYTEST) --cov --cov-report=term:skip-covered

faults: .venv/ready-test
	HOTMATTE_FAULTS=full $(BIN)/pytest tests/faults -s

# A mount namespace of its own, if we may: then it also unmounts a share and fills a disk.
HOURS := 1
soak: .venv/ready-test
	PYTHONPATH=tests $$(unshare --mount true 2>/dev/null && echo unshare --mount) \
	    $(BIN)/python tests/soak/soak.py --hours $(HOURS) $(SOAK)

deb:
	@python=$$(command -v /usr/bin/python3 || echo "$(PYTHON)"); "$$python" deploy/debian/build.py dist

bench: .venv/ready-test
	$(BIN)/python -m benchmarks --render

format: .venv/ready-test
	$(BIN)/ruff format
	$(BIN)/ruff check --fix
