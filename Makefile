# Planaria. Every target says what it does in `make help`; the work is in scripts/.
.DEFAULT_GOAL := help
.PHONY: help up down status logs service service-off gpu-check gpu test check bench chaos clean
PY := .venv/bin/python
ANY := $(or $(wildcard $(PY)),python3)

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | column -t -s '|' 2>/dev/null || sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST)

up: ## start everything, wait until it serves, say where (ROLES="hub device streams tun audio voice" to choose, CUDA=1 once for an NVIDIA GPU)
	@sh scripts/bootstrap.sh $(if $(filter 1,$(CUDA)),cuda)
	@$(if $(ROLES),PLANARIA_ROLES="$(ROLES)") $(PY) scripts/cli.py up

down: ## end everything; nothing of this checkout stays alive
	@$(ANY) scripts/down.py

status: ## processes and streams (JSON=1 for programs)
	@$(ANY) scripts/cli.py status $(if $(filter 1,$(JSON)),--json)

logs: ## follow all logs
	@$(ANY) scripts/cli.py logs

service: ## have systemd start it with the machine and keep it up (root: for all, else for you)
	@$(ANY) scripts/service.py install

service-off: ## end that and take it away
	@$(ANY) scripts/service.py remove

gpu-check: ## what this machine's GPU can do, as a table (DEVICE_IDX=1 for another one, JSON=1 for programs)
	@sh scripts/bootstrap.sh
	@$(PY) scripts/gpu_check.py $(if $(DEVICE_IDX),--device-idx "$(DEVICE_IDX)") $(if $(filter 1,$(JSON)),--json)

test: ## run all tests (T=path or -k expression to choose, J=processes, LONG=1 for those that take long, too)
	@sh scripts/bootstrap.sh dev
	@sh scripts/setup_tests.sh
	@$(if $(LONG),PLANARIA_LONG=1 )$(PY) -m tests.again $(or $(J),5) $(T)

check: ## ruff and mypy --strict on everything
	@sh scripts/bootstrap.sh dev
	@$(PY) -m ruff format --check . && $(PY) -m ruff check . && $(PY) -m mypy

bench: ## measure against peers (B=name, QUICK=1 for a minute)
	@sh scripts/bootstrap.sh dev
	@sh scripts/setup_tests.sh
	@$(PY) -m tests.bench $(or $(B),all) $(if $(QUICK),--quick)

gpu: ## tests and measurements that need a GPU (QUICK=1 for short ones)
	@sh scripts/bootstrap.sh dev cuda
	@sh scripts/setup_tests.sh
	@$(PY) -m pytest tests/gpu
	@$(PY) -m tests.bench gpu $(if $(QUICK),--quick)

chaos: ## kill, freeze and hang every process for MINUTES=10, and see it come back (SEED=n for the same faults)
	@sh scripts/bootstrap.sh dev
	@sh scripts/setup_tests.sh
	@$(PY) -m tests.chaos --minutes $(or $(MINUTES),10) $(if $(SEED),--seed $(SEED)) $(if $(filter 1,$(JSON)),--json)

# What would be missed stays: accounts and devices of the hub, who this device is, a password not seen yet.
clean: ## end everything and remove what was made here (not your settings, the hub's accounts, the device's identity)
	@$(ANY) scripts/down.py
	@if [ -d run ]; then find run -mindepth 1 -maxdepth 1 ! -name 'hub.sqlite*' ! -name 'voice.sqlite*' ! -name voice.owner ! -name device.json ! -name admin-password \
		! -name agent ! -name audio-token -exec rm -rf {} +; rmdir run 2>/dev/null || true; fi
	@rm -rf go2rtc/bin .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@if [ -d temp/streams ]; then find temp/streams -type p -delete; find temp -type d -empty -delete; fi
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
