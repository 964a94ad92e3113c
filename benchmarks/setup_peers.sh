#!/bin/sh
# Makes the environment of the peers: benchmarks/setup_peers.sh FOLDER. They need other versions than saescale: never one environment.
set -e
FOLDER=${1:?give a folder for the environment}
PYTHON=${PYTHON:-python3}
test -x "$FOLDER/bin/python" || "$PYTHON" -m venv "$FOLDER"
PIP="$FOLDER/bin/python -m pip install --quiet --disable-pip-version-check"
$PIP torch==2.13.0    # first, and named again below, so that no resolver swaps the build
$PIP torch==2.13.0 sae-lens==6.54.12 eai-sparsify==1.3.3 dictionary-learning==0.1.0
$PIP --no-deps sae-bench==0.6.0 tabulate==0.10.0    # it asks for numpy 1 and an API's client; its core evaluation needs neither
"$FOLDER/bin/python" -m pip uninstall --quiet --yes torchvision    # comes with nnsight for another torch, and then nothing imports
echo "peers are ready: python -m benchmarks.train_step --peers $FOLDER/bin/python"
