# One line each; everything else is in Python. `make demo` and `make test` set up what they need.
PYTHON ?= python3
BIN := .venv/bin
# Once, here: compiling at the first start would cost each service time and memory.
COMPILE := $(BIN)/python -m compileall -q protocol gateway services agents sandbox && $(BIN)/python -c "import anthropic, \
	gateway.app, services.cli, services.history.service, services.repos.service, services.runner.runner, services.welcome"
# Compiled files live in .venv too: the tree has nothing that is not in git.
export PYTHONPYCACHEPREFIX := $(CURDIR)/.venv/pycache
unexport PYTHONDONTWRITEBYTECODE
LOCK := $(BIN)/uv pip compile -q pyproject.toml --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.11
GENERATE = $(BIN)/python -m protocol.generate $(1) && $(BIN)/python -m gateway.contract $(1) && \
	$(BIN)/python -m services.settings_page $(1)
LANES := pure journeys kills integration parts
pure := tests/unit tests/simulation
kills := tests/storm $(addprefix tests/journey/test_,kills.py repair.py runner_kills.py rolling.py nothing_left.py compose.py docker.py)
journeys := tests/journey $(patsubst %,--ignore=%,$(filter tests/journey/%,$(kills)))
integration := tests/integration
parts := $(patsubst %,--ignore=%,$(pure) tests/journey tests/storm $(integration))
PIP := $(BIN)/pip install --quiet --disable-pip-version-check

.venv/.ready: requirements.lock pyproject.toml
	@$(PYTHON) -m venv .venv && $(PIP) --require-hashes -r requirements.lock && $(PIP) --no-deps --no-build-isolation -e . && $(COMPILE) && touch $@
.venv/.dev: .venv/.ready requirements-dev.lock
	@$(PIP) --require-hashes -r requirements-dev.lock && touch $@
.venv/.web: .venv/.dev tests/web/package-lock.json
	@$(BIN)/python -m tests.web.node && touch $@
$(BIN)/nats: .venv/.dev tests/natscli/go.sum
	@$(BIN)/python -m tests.natscli.build

.PHONY: demo run sandbox-image test test-faults bench check generate pictures lock
demo: .venv/.ready ## a real task from submit to a pushed branch, then everything stops
	@$(BIN)/errand demo
run: .venv/.ready ## start the server on this machine
	@$(BIN)/errand up
sandbox-image: .venv/.ready ## the Docker sandbox's image, ahead of its first use
	@$(BIN)/python -m sandbox.image $(if $(BASE_IMAGE),--base $(BASE_IMAGE))
test: .venv/.dev .venv/.web ## every test but the long fault runs
	@rm -f .venv/*.log; $(MAKE) --no-print-directory -j4 -k $(LANES:%=lane-%) || { grep -hE "^(FAILED|ERROR)" .venv/*.log; exit 1; }
# Four lanes at a time: most tests wait most of the time. What only computes has no clock to miss, and yields to the rest.
lane-pure: YIELD := nice -n 19
lane-pure: pure += --timeout=600
lane-%:
	@temp=$$(mktemp -d); $(YIELD) $(BIN)/python -m pytest -q -m "not faults" --basetemp=$$temp $($*) >.venv/$*.log 2>&1; \
		status=$$?; cat .venv/$*.log; [ $$status -ne 0 ] || rm -rf $$temp; exit $$status
test-faults: .venv/.dev ## kill every service, many times
	@$(BIN)/python -m pytest -m faults --timeout=1800
bench: .venv/.dev ## ours and the peers', side by side
	@$(BIN)/python -m benchmarks
bench-%: .venv/.dev
	@$(BIN)/python -m benchmarks.$*
check: .venv/.dev ## format, lint, types, generated files
	@$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/basedpyright && $(call GENERATE,--check)
generate: .venv/.dev ## from the messages' classes: the protocol page, JSON Schema, AsyncAPI, OpenAPI, TypeScript, the settings
	@$(call GENERATE)
pictures: .venv/.dev ## of the terminal and of the page, for README and docs
	@$(BIN)/python -m tests.journey.terminal_pictures
	@PICTURES=docs $(BIN)/python -m pytest -q tests/journey/test_page_screens.py
lock: .venv/.dev ## pin what pyproject.toml asks for, with hashes and without any index's address
	@$(LOCK) --group build -o requirements.lock && $(LOCK) --group build --group dev -o requirements-dev.lock
