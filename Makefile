# Each target first makes .venv as uv.lock says; Python 3.11 or newer and make are all it needs.
.DEFAULT_GOAL := help
.PHONY: demo run test check bench soak help ready
.NOTPARALLEL:

PYTHON = $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
BIN := .venv/bin

demo: ready ## a whole hospital on this machine: simulated Sectra, archive and vendor, and the gateway (ARGS="--serve" keeps it open)
	@$(BIN)/gateway demo $(ARGS)

run: ready ## the gateway itself (ARGS="--config gateway.yaml")
	@$(BIN)/gateway run $(ARGS)

test: ready ## all tests (ARGS="tests/unit -k multipart" for some)
	@# A file's tests go to one process: what they share is started once. The small ones come last.
	@$(BIN)/python -m pytest -p tests.programs -n 4 --dist loadfile --no-loadscope-reorder $(ARGS)

check: ready ## style, types, and which room may know which
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: ready ## how fast, how much, how soon after a crash (ARGS="slide_download" for one)
	@$(BIN)/python -m tests.bench $(ARGS)

soak: ready ## a hospital through a planned run of faults (ARGS="--minutes 30 --replicas 2 --seed 7")
	@$(BIN)/python -m tests.soak $(ARGS)

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | while IFS="$$(printf '\t')" read -r name text; do \
		printf '  make %-6s %s\n' "$$name" "$$text"; done

ready:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed (Debian: apt-get install python3)." >&2; exit 1; }
	@$(PYTHON) deploy/bootstrap.py
