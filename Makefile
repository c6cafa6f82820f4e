# Everything runs in a virtual environment inside the clone; the first target that needs it builds it.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: demo test lint bench study soak docs linkcheck clean

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python >= 3.11 is needed: make PYTHON=...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

# The main job: table on the screen, pictures and CSV in out/demo.
demo: $(STAMP)
	$(BIN)/banditroute demo --out out/demo

test: $(STAMP)
	$(BIN)/python -m pytest

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Measure everything the documents quote, then write it there. The other libraries get environments of their own.
bench: demo
	mkdir -p out
	$(BIN)/python benchmarks/demo_page.py
	$(BIN)/python benchmarks/run_peers.py
	$(BIN)/python benchmarks/bars_engine.py
	$(BIN)/python -m pytest benchmarks/test_bench_*.py --benchmark-enable --benchmark-only --benchmark-json=out/bench.json
	$(BIN)/python benchmarks/report.py

study: $(STAMP)
	$(BIN)/python benchmarks/study_polar.py --out out/study

soak: $(STAMP)
	$(BIN)/python benchmarks/soak.py
	$(BIN)/python benchmarks/soak_faults.py

$(VENV)/.docs: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[docs]'
	$(BIN)/python -c 'import banditroute; banditroute.warmup()'
	touch $@

# The site, notebooks executed, into out/docs/html; any warning is an error. Links to other sites: make linkcheck.
docs: $(VENV)/.docs
	$(BIN)/sphinx-build -W --keep-going -q -b html -d out/docs/doctrees docs out/docs/html

linkcheck: $(VENV)/.docs
	$(BIN)/sphinx-build -q -b linkcheck -d out/docs/doctrees docs out/docs/links

clean:
	rm -rf $(VENV) out
