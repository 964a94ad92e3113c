# Two commands do all: `make demo` and `make test`. Both set up .venv first when it is not there.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PEERS ?= .peers
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
export HF_HUB_OFFLINE := 1
export TOKENIZERS_PARALLELISM := false

.PHONY: demo test test-triton test-slow test-cuda test-slurm test-wandb test-browser test-peers test-results setup lint clean

setup: $(VENV)/.ready

# torch first and named again, so that no resolver swaps the pinned build for another
$(VENV)/.ready: pyproject.toml constraints.txt
	@echo "setting up $(VENV) (about a minute) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) torch==$$(sed -n 's/^torch==//p' constraints.txt)
	@$(PIP) -c constraints.txt torch==$$(sed -n 's/^torch==//p' constraints.txt) -e '.[dev,fast]'
	@touch $@

demo: setup
	@$(BIN)/saescale demo

test: setup
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

# What takes long on two cores
test-slow: setup
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow tests/training tests/analysis

# The GPU kernels in Triton's interpreter, against float64: adds the extra `gpu` (about 600 MB) to the environment
test-triton: setup
	@$(PIP) -c constraints.txt torch==$$(sed -n 's/^torch==//p' constraints.txt) -e '.[gpu]'
	@TRITON_INTERPRET=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m triton -n 2 tests/sae/test_triton.py

# Training on a GPU; the tests of two ranks want two. Says what it skipped and why
test-cuda: setup
	@$(BIN)/python -m pytest -m 'cuda or triton' -rs tests/sae tests/training --durations=10

# A Slurm of its own on this host: needs root and the packages slurm-wlm munge slurmdbd mariadb-server
test-slurm: setup
	@SAESCALE_SLURM=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slurm tests/slurm --durations=10 $(AGAIN)

# wandb's own client against files and a small server on loopback
test-wandb: setup
	@SAESCALE_WANDB=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m wandb -n 2 tests/track

# The report in a headless Chromium: needs the packages chromium chromium-driver
test-browser: setup
	@SAESCALE_BROWSER=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m browser -rP tests/analysis/browser

# Exchange with SAELens and sparsify, in an environment of their own: some minutes to set up, 2.3 GB
test-peers: setup
	@PYTHON=$(PYTHON) benchmarks/setup_peers.sh $(PEERS)
	@SAESCALE_PEERS=$(abspath $(PEERS))/bin/python OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m peers tests/peers

# Published studies: laws and figures come out of their tables again
test-results: setup
	@OMP_NUM_THREADS=1 $(BIN)/python .ci/results

lint: setup
	@$(BIN)/ruff check .

clean:
	rm -rf $(VENV) $(PEERS) runs
