# One line a target, shown by `make`. Everything runs as root on a Debian 12 machine and installs what it needs itself.
SHELL := /bin/bash
.DEFAULT_GOAL := help
VENV := .venv/bin
COLLECTION := collections/ansible_collections/evio/cni
export PATH := $(CURDIR)/$(VENV):$(PATH)
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg
export ANSIBLE_COLLECTIONS_PATH := $(CURDIR)/collections

.PHONY: help
help:  ## This list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

.PHONY: setup
setup:  ## Debian and PyPI packages for the lab, the tests and the gates; starts nothing
	@setup/machine

.PHONY: plugin
plugin:  ## The programs for this machine in build/bin, and their archive for the nodes
	@/usr/bin/python3 plugins_src/build.py

.PHONY: demo
demo: setup plugin  ## A public node and two behind NATs, from bare hosts to pods that talk, and the proof
	@lab/lab up 3
	@ansible-playbook -i inventories/lab playbooks/bootstrap.yml
	@lab/lab pods up
	@lab/lab prove
	@lab/lab tour

.PHONY: demo-down
demo-down:  ## Takes the lab away: no process, namespace, mount, interface or rule stays
	@lab/lab down

.PHONY: test
test: setup plugin  ## Unit tests, and integration tests on real etcd, OVS, host-local and namespaces
	@pytest -m "not long"

.PHONY: lint
lint: setup plugin  ## ruff, mypy --strict, the library's floors, yamllint, ansible-lint (production), ansible-test sanity
	ruff check
	ruff format --check
	mypy
	PYTHONPATH=collections lint-imports --no-cache --no-logo
	yamllint --strict .
	ansible-lint --profile production --offline
	antsibull-docs lint-collection-docs --plugin-docs $(COLLECTION)
	setup/sanity

.PHONY: docs
docs: setup  ## The pages of modules, filters and roles, from their own documentation, in build/docs
	@mkdir -p -m 700 build/docs
	@antsibull-docs collection --use-current --squash-hierarchy --dest-dir build/docs evio.cni

.PHONY: molecule
molecule: setup plugin  ## The lab and the playbooks under molecule: converge, idempotence, verify; nodes that leave
	molecule test --all

.PHONY: scenarios
scenarios: setup plugin  ## NATs that forget or change, relays that die, IPv6, MTU 1280: seconds until pods talk again
	@lab/lab scenarios

.PHONY: bench
bench: setup plugin  ## Side by side with the peers, in one run; and the registry in chaos, in full
	@set -e; for benchmark in benchmarks/*_bench.py; do echo "== $$benchmark"; python $$benchmark; done
	@pytest -m long --durations=0 $(COLLECTION)/tests/integration/test_registry_chaos.py

.PHONY: long
long: setup plugin  ## 10 000 pods, and the registry in chaos: a quarter of an hour, and what was found
	@pytest -m long --durations=0
