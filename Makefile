# Two commands do all the set-up:  make demo   and   make test
# They make their own environment in .venv; README.md has the same in plain pip, for Windows and Colab.
VENV ?= .venv
python = $(VENV)/bin/python

.PHONY: demo test test-oldest test-newest bench lint docs notebooks wheel clean

demo:  ## the whole method on synthetic reviews, minutes, offline
	@bash .ci/environment $(VENV)
	$(python) -m ulmfit_fastai demo

test:  ## the tests, as CI runs them
	@bash .ci/environment $(VENV) test,lint,docs,parquet,zstd
	$(python) -m pytest -n 2 --dist worksteal

test-oldest:  ## a quick set of tests on Python 3.10 and the oldest versions that the ranges allow, in .venv-oldest
	@bash .ci/versions oldest

test-newest:  ## the same on Python 3.13 and the newest versions, in .venv-newest
	@bash .ci/versions newest

bench:  ## stock fastai and this package side by side, half an hour; DATA=imdb.tgz for real reviews
	@bash .ci/environment $(VENV)
	$(python) -m benchmarks $(if $(DATA),--data $(DATA))

lint:  ## style, types, and the way of the imports
	@bash .ci/environment $(VENV) test,lint,docs,parquet,zstd
	$(python) -m ruff check .
	$(python) -m mypy
	$(VENV)/bin/lint-imports --no-cache

docs:  ## the documentation as a site, with notebooks and reference, into site
	@bash .ci/environment $(VENV) docs
	NO_MKDOCS_2_WARNING=1 $(python) -m mkdocs build

wheel:  ## source distribution and wheel, into dist
	@bash .ci/environment $(VENV) release
	$(python) -m build

notebooks:  ## execute the notebooks on real data and keep their outputs (IMDb is downloaded where it isn't at hand)
	@bash .ci/environment $(VENV) notebooks
	$(python) notebooks/run.py

clean:  ## remove what these commands made, runs/demo included; other runs stay
	rm -rf $(VENV) .venv-oldest .venv-newest build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache runs/demo
	find ulmfit_fastai tests -name __pycache__ -type d -prune -exec rm -rf {} +
