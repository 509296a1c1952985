# What one does with lazypagesd in a checkout.  `make` alone lists it.

PYTHON = .venv/bin/python
PYTEST_ARGS ?=
# Of `make torture`: the first seed, rounds (0: as many as fit), seconds, and further options.
SEED ?= 1
ROUNDS ?= 0
SECONDS ?= 3600
# Of `make fuzz`, beside the seconds.
TARGET ?= images
TORTURE_ARGS ?=
# Of `make bench`: the cases by name, all if there is none.
CASE ?=
BENCH_ARGS ?=
# Of `make install`: see systemd/install.sh.
export DESTDIR PREFIX

.DEFAULT_GOAL := help
.PHONY: help bootstrap test lint bench torture fuzz zdtm demo install uninstall clean

help:
	@echo 'make test    run every test; PYTEST_ARGS="-k word" runs some'
	@echo 'make lint    check formatting, types and layers alone'
	@echo 'make bench   measure beside criu lazy-pages and a bare loop; CASE="ready calls" runs some'
	@echo 'make torture look for pages that are wrong, for SECONDS=3600, from SEED=1 on'
	@echo 'make fuzz    look for input that breaks a TARGET=images, for SECONDS=3600'
	@echo 'make zdtm    run the tests of CRIU with either daemon; ZDTM_ARGS="--flavors h" runs some'
	@echo 'make demo    show a restore that is served page by page'
	@echo 'make install put the program and its units below DESTDIR and PREFIX=/usr/local; see docs/howto/install.md'
	@echo 'make uninstall remove them'
	@echo 'make clean   remove what the others made'

bootstrap:
	@tests/setup/bootstrap.sh

test: bootstrap
	@$(PYTHON) -m pytest $(PYTEST_ARGS)

lint: bootstrap
	@$(PYTHON) -m pytest -q tests/test_style.py tests/test_layers.py $(PYTEST_ARGS)

bench: bootstrap
	@$(PYTHON) -m tests.bench $(CASE) $(if $(CASE),,--charts) $(BENCH_ARGS)

torture: bootstrap
	@$(PYTHON) -m tests.torture --vary --seed $(SEED) --rounds $(ROUNDS) --total $(SECONDS) $(TORTURE_ARGS)

fuzz: bootstrap
	@$(PYTHON) -m pip install -q --group fuzz
	@$(PYTHON) -m tests.fuzz --target $(TARGET) --seconds $(SECONDS)

zdtm: bootstrap
	@tests/setup/get-zdtm.sh .build/zdtm
	@$(PYTHON) -m tests.zdtm $(ZDTM_ARGS)

demo: bootstrap
	@$(PYTHON) -m lazypagesd.demo

install uninstall:
	@systemd/install.sh $@

clean:
	rm -rf .venv .build build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	rm -f lazypagesd/native/_native.c lazypagesd/native/*.so lazypagesd/client/*.so
	find lazypagesd tests -name __pycache__ -prune -exec rm -rf {} +
