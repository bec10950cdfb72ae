# Everything runs in a virtual environment of its own; Python 3.11 or 3.12 and a C compiler are all that is needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := artifacts/tiny-cpu

.PHONY: demo test lint clean

demo: $(VENV)/export.installed
	$(BIN)/predecode export tiny --target cpu --rows 1,4 --max-context 256 --pages 32 -o $(DEMO)
	$(BIN)/predecode run $(DEMO) --steps 8
	$(BIN)/predecode compare $(DEMO)

test: $(VENV)/test.installed
	$(BIN)/ruff check .
	$(BIN)/pytest -n auto --dist loadgroup

lint: $(VENV)/test.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:
	rm -rf $(VENV) build *.egg-info artifacts/tiny-cpu

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip

# torch first and pinned: its CPU build is taken, and nothing later replaces it.
$(VENV)/export.installed: $(BIN)/python pyproject.toml
	$(BIN)/pip install --quiet torch==2.13.0
	$(BIN)/pip install --quiet --editable ".[export]"
	touch $@

$(VENV)/test.installed: $(BIN)/python pyproject.toml
	$(BIN)/pip install --quiet torch==2.13.0
	$(BIN)/pip install --quiet --editable ".[export,emulation,test]"
	touch $@
