# make demo: see it work. make test: what CI runs. Both make their own environment in $(VENV) first.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Not the code in README.md: its comments stand in one column.
CODE := src tests benchmarks

.PHONY: demo test clean

demo: $(VENV)/.installed-demo
	$(BIN)/untrojan demo

test: $(VENV)/.installed-test
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/mypy
	$(BIN)/python -m pytest

# The stamp of an extra is newer than what it was made from, so a second make installs nothing.
$(VENV)/.installed-%: pyproject.toml constraints.txt | $(BIN)/pip
	@echo "Installing into $(VENV); PyTorch is large, this can take a few minutes."
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[$*]"
	@touch $@

$(BIN)/pip:
	$(PYTHON) -m venv $(VENV)

clean:
	rm -rf $(VENV) untrojan-demo build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
