# `make` alone shows a line of help for each target. Everything runs as root on a Debian 12 machine, and installs what it
# needs. Prerequisites run one after the other, in the order in which they are named.
SHELL := /bin/bash
.DEFAULT_GOAL := help
VENV := .venv/bin
# Nodes of the lab that preflight checks for, and its options.
NODES := 3
PREFLIGHT :=
# Tests that run at the same time: one more than processors, because most tests wait for a daemon most of their time.
WORKERS := $(shell echo $$(($$(nproc) + 1)))
COLLECTION := collections/ansible_collections/evio/cni
export PATH := $(CURDIR)/$(VENV):$(PATH)
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg
export ANSIBLE_COLLECTIONS_PATH := $(CURDIR)/collections

.NOTPARALLEL:

.PHONY: help
help:  ## Show this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

.PHONY: preflight
preflight:  ## Check that this machine can carry the lab: rights, kernel, disk, memory; changes nothing
	@[ -x /usr/bin/python3 ] || { echo "preflight: python3 is missing: run apt-get install python3" >&2; exit 1; }
	@setup/preflight.py $(NODES) $(PREFLIGHT)

.PHONY: setup
setup:  ## Install Debian and Python packages for the lab, the tests and the linters; starts no service
	@setup/machine

.PHONY: plugin
plugin:  ## Build the programs for this machine into build/bin, and their archive for the image of the DaemonSet
	@/usr/bin/python3 plugins_src/build.py

.PHONY: collection
collection:  ## Build the collection's archive for Galaxy into build/; needs ansible-core and no root
	@setup/collection_archive.py

.PHONY: image
image: setup plugin  ## Build the image of the DaemonSet into build/evio-cni.tar (docs/daemonset.md)
	@deploy/daemonset/build-image build/evio-cni.tar

.PHONY: demo
demo: preflight setup plugin  ## Build the lab, a public node and two behind NATs; connect its pods, and prove that they are
	@lab/lab up 3
	@echo "== playbooks/bootstrap.yml turns the bare nodes into nodes with a pod network"
	@ansible-playbook -i inventories/lab playbooks/bootstrap.yml
	@lab/lab pods up
	@lab/lab prove
	@lab/lab tour

.PHONY: demo-down
demo-down:  ## Remove the lab: no process, namespace, mount, interface or firewall rule of it stays
	@lab/lab down

.PHONY: test
test: setup plugin  ## Run unit tests, and integration tests on real etcd, OVS, host-local and namespaces
	@pytest -m "not long" --numprocesses $(WORKERS) --dist worksteal

.PHONY: test-kernel
test-kernel: setup plugin  ## Run tests of plugin and overlay in a virtual machine, on the kernel's Open vSwitch and WireGuard
	@vm/test_kernel

.PHONY: test-kernel-nodes
test-kernel-nodes: NODES := 2
test-kernel-nodes: preflight setup plugin  ## Bootstrap two virtual machines with that kernel, and heal what one of them loses
	@lab/lab up 2 --machines
	@lab/lab prove-kernel
	@lab/lab down

.PHONY: test-galaxy
test-galaxy: setup  ## Import the collection's archive as Galaxy does, and run it under the oldest and newest ansible-core
	@setup/galaxy_import "$$(setup/collection_archive.py)"
	@setup/ansible_versions --quick

.PHONY: test-ansible-versions
test-ansible-versions: setup  ## Run the collection under each version of ansible-core that it works with
	@setup/ansible_versions

.PHONY: test-arm64
test-arm64: setup  ## Run programs and unit tests on arm64, in a root file system of Debian's packages under qemu-user
	@setup/test_arm64

.PHONY: test-loss
test-loss: setup plugin  ## Run the overlay there for ten minutes on uplinks that lose, delay and reorder packets
	@vm/test_kernel --loss

.PHONY: lint
lint: setup plugin  ## Run ruff, mypy --strict, the floors' check, yamllint, ansible-lint (production), the docs' build, sanity
	ruff check
	ruff format --check
	mypy
	PYTHONPATH=collections lint-imports --no-cache --no-logo
	yamllint --strict .
	ansible-lint --profile production --offline
	antsibull-docs lint-collection-docs --plugin-docs $(COLLECTION)
	cd $(COLLECTION) && antsibull-changelog lint
	docs/site/build_site.py
	setup/sanity

.PHONY: pins
pins:  ## Write the pinned versions and hashes of Python packages anew, setup/*.txt from setup/*.in
	@setup/pins

.PHONY: status-picture
status-picture:  ## Take README's picture of the status page anew, of the lab that is up (see docs/status.md)
	@ansible-playbook -i inventories/lab playbooks/status.yml -e evio_status_directory=$(CURDIR)/build/evio-status
	@chromium --headless=new --no-sandbox --disable-gpu --hide-scrollbars --window-size=1000,1245 \
	    --screenshot=docs/images/status.png build/evio-status/status.html

.PHONY: docs
docs: setup  ## Build the documentation site into build/docs/html, without a warning; asks nothing of another host
	@docs/site/build_site.py

.PHONY: molecule
molecule: PREFLIGHT := --releases 2
# Scenarios that are left out.
molecule: WITHOUT :=
molecule: preflight setup plugin  ## Run the playbooks on the lab under molecule: converge, idempotence, verify; nodes that leave
	@setup/kubernetes --cached >/dev/null 2>&1 || echo "== without the scenario kubernetes: setup/kubernetes has built nothing yet"
	molecule test --all --exclude operations $(WITHOUT:%=--exclude %) $$(setup/kubernetes --cached >/dev/null 2>&1 || echo --exclude kubernetes)

.PHONY: test-operations
test-operations: preflight setup plugin  ## Run what an operator does in a year on the lab under molecule, from a backup to the end
	molecule test --scenario-name operations

.PHONY: test-releases
test-releases: RELEASES := bookworm trixie node3=trixie
test-releases: PREFLIGHT := --releases 2
test-releases: preflight setup plugin  ## Run the scenario default with nodes of Debian 12, of Debian 13, and of both
	@set -e; for releases in $(RELEASES); do \
		echo "== nodes: $$releases"; EVIO_LAB_RELEASE=$$releases molecule test --scenario-name default; done

.PHONY: test-operator
test-operator: preflight setup  ## Follow docs/quick-start.md on the lab's nodes, as an ordinary user with a clone
	@lab/lab up 3
	@lab/lab prove-operator
	@lab/lab down

.PHONY: test-errors
test-errors: preflight setup plugin  ## Provoke likely errors on the lab, and look for their words in docs/troubleshooting.md
	@lab/lab up 3
	@ansible-playbook -i inventories/lab playbooks/bootstrap.yml
	@lab/lab pods up
	@lab/lab prove-errors
	@lab/lab down

.PHONY: test-kubernetes
test-kubernetes: PREFLIGHT := --kubernetes
test-kubernetes: preflight setup plugin  ## Make a cluster with kubeadm on the lab, and print a table of what works while it breaks (15 min)
	@setup/kubernetes
	@lab/lab up 3 --kubernetes
	@lab/lab prove-kubernetes
	@lab/lab down

.PHONY: scenarios
scenarios: NODES := 8
scenarios: preflight setup plugin  ## Measure how long pods are cut off after faults: NATs that forget or change, dead relays, IPv6, MTU 1280
	@lab/lab scenarios

.PHONY: bench
bench: setup plugin  ## Measure against flannel's VXLAN, the plugin `bridge` and EdgeVPNio/cni; run the long registry test
	@set -e; for benchmark in benchmarks/*_bench.py; do echo "== $$benchmark"; python $$benchmark; done
	@pytest -m long --durations=0 $(COLLECTION)/tests/integration/test_registry_chaos.py

.PHONY: long
long: setup plugin  ## Run the tests that take minutes: 10 000 pods, and the registry under random faults (15 min)
	@pytest -m long --durations=0
