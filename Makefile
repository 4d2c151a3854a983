# Every target works in a clean clone on Debian or Ubuntu: what it needs, it installs.
SHELL := /bin/bash
PY := .venv/bin/python
export PYTHONPATH := $(CURDIR)/tests/support:$(CURDIR)/operator:$(CURDIR)/cache_worker:$(CURDIR)/client:$(CURDIR)/node:$(CURDIR)/protocol:$(CURDIR)/benchmarks
CLUSTER ?= local
IMAGE ?=
PUSH ?= yes
PYTEST_ARGS ?=

.PHONY: help demo down test fetch lint unit cluster-test prove mutants bench lock
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: .venv/ready ## the main job: a real cluster, a real bucket, and pods that read it (CLUSTER=existing: the current kubeconfig)
	@$(PY) -m testkit.demo --cluster $(CLUSTER) --image "$(IMAGE)" --push $(PUSH)

down: ## remove everything that demo and the tests started
	@PYTHONPATH=$(CURDIR)/tests/support python3 -m testkit down

test: lint fetch ## all tests: lint, types, import layers, unit, golden, real S3, real FUSE, real cluster
	$(PY) -m pytest $(PYTEST_ARGS)

fetch: .venv/ready ## get the cluster's programs and the image into the cache (minutes, once)
	@$(PY) -m testkit fetch

lint: .venv/ready ## formatting, style, types, import layers
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	$(PY) -m mypy
	.venv/bin/lint-imports

unit: .venv/ready ## only the tests that need neither root nor a cluster
	$(PY) -m pytest -m "not cluster and not fuse and not disk and not s3" $(PYTEST_ARGS)

cluster-test: fetch ## only the tests on the real cluster
	$(PY) -m pytest -m cluster $(PYTEST_ARGS)

prove: .venv/ready ## the long proofs at full size, resumable; results in docs/RELIABILITY.md (QUESTION=name: only that one)
	@$(PY) -m testkit.prove $(QUESTION)

bench: fetch ## all benchmarks (root; under 40 minutes); tables in benchmarks/README.md (one alone: make bench-data)
	@$(PY) -m forebay_bench

bench-%: fetch
	@$(PY) -m forebay_bench $*

mutants: .venv/ready ## seeded bugs, each of which must turn a named test red
	@$(PY) -m testkit.mutants

lock: .venv/ready ## compile the hash-pinned requirements anew
	scripts/lock

.venv/ready: requirements/dev.txt scripts/venv
	@scripts/venv
