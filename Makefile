# Needs git, make and Python 3.11 to 3.13; requirements.lock brings everything else.
PYTHON ?= python3
JOBS ?= 2
bin := .venv/bin
ready := .venv/.installed
# On a GPU, processes that work side by side take memory as they need it.
export XLA_PYTHON_CLIENT_PREALLOCATE ?= false
# What one process has compiled, the next one reads: it saves a tenth to a third of the work.
export JAX_COMPILATION_CACHE_DIR ?= $(CURDIR)/build/compiled
export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS ?= 0
export JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES ?= -1
# Modules that Python has read are kept, also where it is told to keep nothing.
export PYTHONDONTWRITEBYTECODE =
# A file that another process has not yet written in full is compiled again.
export PYTHONWARNINGS ?= ignore:Error reading persistent compilation,ignore:Error writing persistent compilation

.PHONY: book pdf test test-laws test-records test-smoke execute lint serve lock

book: $(ready)
	@$(bin)/python tools/records.py --check || echo "warning: stale records are shown as they are; 'make execute' renews them"
	$(bin)/jupyter-book build . --all -W -n --keep-going

# The book as one file, build/deep-limits.pdf, printed by Chromium or Chrome.
pdf: $(ready)
	$(bin)/python tools/pdf.py

# All the parts, also after one that failed; what passed stands at the end.
test: $(ready)
	@$(bin)/python tools/parts.py $(MAKE) book test-laws test-records test-smoke

# What is small compiles longer than it runs: optimised less, and without the slowest
# way to make code, it is done in half the time or less. Records, and `.ci/run
# library`, are compiled as readers compile them.
test-laws test-smoke: export JAX_DISABLE_MOST_OPTIMIZATIONS ?= 1
test-laws test-smoke: export XLA_FLAGS ?= --xla_cpu_use_fusion_emitters=false

test-laws: $(ready)
	$(bin)/pytest -n $(JOBS)

# Records are made on the CPU, so they are compared there.
test-records: $(ready)
	JAX_PLATFORMS=cpu PYTHONPATH=tests $(bin)/pytest -p nbval_rounding -n $(JOBS) --dist loadfile --nbval --nbval-sanitize-with tests/nbval_sanitize.cfg book

test-smoke: $(ready)
	$(bin)/python tools/records.py --profile smoke --output build/smoke

execute: $(ready)
	$(bin)/python tools/records.py

lint: $(ready)
	$(bin)/ruff check . && $(bin)/ruff format --check .
	$(bin)/pyright

serve: book
	$(bin)/python -m http.server --directory _build/html 8000

lock:
	uv lock --upgrade && uv export --quiet --python 3.11 --no-group bench --no-emit-project --no-annotate --no-header -o requirements.lock
	$(MAKE) environment.yml

environment.yml: $(ready) tools/environments.py
	$(bin)/python tools/environments.py

# Of what is installed a part is used: Python compiles that when it first reads it.
$(ready): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; (3, 11) <= v <= (3, 13) or sys.exit("Deep Limits needs Python 3.11 to 3.13; $(PYTHON) is %d.%d. Try: make PYTHON=python3.12" % v)'
	@$(PYTHON) -c 'import platform, sys, sysconfig; host = sysconfig.get_config_var("HOST_GNU_TYPE") or ""; (sys.platform, platform.machine()) != ("darwin", "x86_64") and "musl" not in host or sys.exit("JAX has wheels for Linux with glibc, macOS on Apple silicon and Windows; none for Macs with Intel processors, nor for Linux with musl.")'
	$(PYTHON) -m venv .venv
	$(bin)/python -m pip install --quiet --no-compile --require-hashes --no-deps -r requirements.lock
	$(bin)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@
