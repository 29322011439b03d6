# What developers run. `make help` lists it. Everything is made from Debian packages and PyPI; nothing is left outside
# .build/, .venv, the cache in ~/.cache and ansible-test's own ~/.ansible/test.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help prepare venv quick unit install-check lint docs-lint sanity sanity-oldest sanity-newest lab-test test prove bench demo demo-down clean

# Version managers put shims on the path that Ansible cannot use, so it holds real programs only.
export PATH := $(CURDIR)/.venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export ANSIBLE_COLLECTIONS_PATH := $(CURDIR)/.build/collections
export PYTHONPATH := $(CURDIR)/.build/collections
export PYTHONDONTWRITEBYTECODE := 1

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1|/p' $(MAKEFILE_LIST) | column -t -s '|'

prepare: ## install the Debian packages that are missing
	@tools/prepare

venv: prepare ## make .venv, with the oldest supported ansible-core and the test tools
	@tools/venv oldest .venv >/dev/null
	@tools/collection-path >/dev/null

unit: venv ## unit tests
	python -m pytest -q -p no:cacheprovider tests/unit

lint: venv ## ansible-lint, yamllint, shellcheck
	yamllint --strict .
	ansible-lint --offline
	shellcheck tools/* .ci/run molecule/lab/lab
	shellcheck --exclude=SC2154 molecule/lab/image

docs-lint: venv ## documentation and changelog
	antsibull-docs lint-collection-docs --plugin-docs .
	antsibull-changelog lint

sanity-oldest: venv ## ansible-test sanity with the oldest supported ansible-core
	tools/sanity oldest

sanity-newest: venv ## ansible-test sanity with the newest supported ansible-core
	tools/sanity newest

sanity: sanity-oldest sanity-newest ## both of these

install-check: venv ## usable from the tarball, vendored, and from a checkout
	@tools/install-check

QUICK := unit install-check lint docs-lint sanity-oldest sanity-newest

quick: venv ## everything that needs no lab: minutes
	@tools/stages $(QUICK)

lab-test: venv ## the scenarios on real kernels, both Debian releases at once; SCENARIOS="site modules" chooses
	@tools/lab-test $(SCENARIOS)

# The images of the lab are made meanwhile, so that the lab need not wait for them.
test: venv ## all the tests
	@mkdir -p .build; setsid bash -c 'molecule/lab/image 12; molecule/lab/image 13' >.build/images.log 2>&1 & \
	trap "kill -- -$$! 2>/dev/null || true" EXIT; tools/stages $(QUICK) -- lab-test

prove: venv ## the long proofs, hours: every scenario with its full counts, on both Debian releases; SCENARIOS="faults recover" chooses
	@LAB_ROUNDS=$${LAB_ROUNDS:-50} LAB_STEP=1 tools/lab-test $(SCENARIOS)
	@tools/proofs

bench: venv ## how fast it is, as ratios; PARTS="latency commit guard site amplification cleaner" chooses
	@LAB_NAME=bench molecule/bench/bench.py $(PARTS)

demo: venv ## two hosts, two devices, to look at; they stay up until demo-down
	@LAB_NAME=demo molecule/demo/demo.py

demo-down: ## take the demo down
	@if [[ -e .venv ]]; then LAB_NAME=demo molecule/lab/lab down; fi

clean: demo-down ## remove what was made here, and the caches
	rm -rf .build .venv .ansible tests/output
	rm -rf "$${XDG_CACHE_HOME:-$$HOME/.cache}/indestructible-block" "$${XDG_CACHE_HOME:-$$HOME/.cache}/indestructible-lab"
