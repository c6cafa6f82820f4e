# Everything runs in a virtual environment inside the clone; the first target that needs it builds it.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
VLLM   := .venv-vllm
TORCH  ?= torch==2.13.0
JOBS   ?= 2

.DEFAULT_GOAL := help
.PHONY: help demo test lint bench bench-compare readme study study-lora servers soak docs notebooks linkcheck clean

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python >= 3.11 is needed: make PYTHON=...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

help: ## Show the targets.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

# The main job: table on the screen, pictures and CSV in out/demo.
demo: $(STAMP) ## Fifteen adapters, room for four: a table, pictures and a CSV in out/demo.
	$(BIN)/banditroute demo --out out/demo

test: $(STAMP) ## All tests, doctests and the code of the documents.
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile

lint: $(STAMP) ## Style, format and types.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Measure everything the documents quote, then write it there. The other libraries get environments of their own.
bench: $(STAMP) ## Measure again what the documents quote, and write it there; prints its plan first.
	$(BIN)/python benchmarks/run_all.py

# The tables and pictures of residency in the README, measured anew by one command.
readme: demo ## Measure the README's table of residency again, and write it there.
	$(BIN)/python benchmarks/demo_page.py
	$(BIN)/python benchmarks/report.py

# Process pairs in alternating order with an A/A control: make bench-compare BASE=879b346
bench-compare: $(STAMP) ## Time this code against another commit: BASE=...
	$(BIN)/python benchmarks/compare.py $(BASE)

study: $(STAMP) ## Residency controllers over workloads, into out/study.
	$(BIN)/python benchmarks/study_polar.py --out out/study

# The partners that the suite is too small for: vLLM (in an environment of its own, 3.4 GB), PyTorch and PEFT, LiteLLM's
# proxy, llama.cpp in a process of its own. The tests print what they saw.
$(VLLM)/.installed:
	test -x $(VLLM)/bin/python || $(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/python tests/servers_real/install_vllm.py
	touch $@

servers: $(STAMP) $(VLLM)/.installed ## Against real model servers and gateways; installs them first.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check '$(TORCH)' -e '.[dev,llamacpp,peft,litellm]' 'litellm[proxy]'
	$(BIN)/python -m pytest -s -rs tests/servers_real tests/test_model_servers.py tests/test_llamacpp_server.py $(wildcard tests/test_litellm*.py) tests/test_walks.py

# Trains 16 adapters on texts of this machine the first time and keeps them in out/lora.
study-lora: $(STAMP) ## Residency control over real LoRA adapters, into docs/studies/real-lora.md.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check '$(TORCH)' -e '.[demo,peft]'
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/study_lora.py
	$(BIN)/python benchmarks/report.py

soak: $(STAMP) ## Long runs: memory, tails, faults of the disk, cut connections, a rolling deployment.
	$(BIN)/python benchmarks/soak.py
	$(BIN)/python benchmarks/soak_faults.py
	$(BIN)/python benchmarks/soak_redis.py
	$(BIN)/python benchmarks/rolling.py
	$(BIN)/python benchmarks/rolling.py --redis

$(VENV)/.docs: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[docs]'
	$(BIN)/python -c 'import banditroute; banditroute.warmup()'
	touch $@

# The site, notebooks executed, into out/docs/html; any warning is an error. Links to other sites: make linkcheck.
docs: $(VENV)/.docs ## The site with its notebooks executed, into out/docs/html.
	$(BIN)/sphinx-build -W --keep-going -q -b html -d out/docs/doctrees docs out/docs/html

notebooks: $(VENV)/.docs ## The notebooks of the documentation, opened in Jupyter.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check jupyterlab
	mkdir -p out/notebooks
	for page in docs/notebooks/*.md; do $(BIN)/jupytext --quiet --to ipynb --output out/notebooks/$$(basename $$page .md).ipynb $$page; done
	$(BIN)/jupyter lab out/notebooks

linkcheck: $(VENV)/.docs ## Follow the links of the site to other sites.
	$(BIN)/sphinx-build -q -b linkcheck -d out/docs/doctrees docs out/docs/links

clean: ## Remove the environment and out/.
	rm -rf $(VENV) $(VLLM) out
