# Slipway from data to a load-tested service. `make` or `make help` lists the verbs.
#
# A stage (data train ... report) leaves a record, $(REC)/<stage>.json, and touches a stamp. The next
# stage depends on the record, which is replaced only if it changed; so what changed nothing reruns
# nothing. Settings are inputs too: $(REC)/.settings/<stage> is rewritten, while this file is read,
# only if one of them changed.

ifeq ($(filter 4.% 5.% 6.%,$(MAKE_VERSION)),)
$(error GNU make $(MAKE_VERSION) is too old, 4.0 or later is needed: on macOS `brew install make`, then `gmake`)
endif
ifeq ($(wildcard make/env.sh),)
$(error Run make in the root of the clone, or with -C)
endif

MAKEFLAGS += --no-builtin-rules --warn-undefined-variables
SHELL := bash
.SHELLFLAGS := -o errexit -o nounset -o pipefail -c
.SUFFIXES:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

# For one call, and never remembered.
ONE_CALL := PARAMS FORCE MODEL_VERSION CONFIRM UPGRADE VERBOSE INPUT OUTPUT KEEP PROBABILITIES \
	BENCH_PEERS BENCH_SECONDS BENCH_ROUNDS
PARAMS ?=
FORCE ?=
MODEL_VERSION ?=
VERBOSE ?=
SLIPWAY_LOCKED ?=
Q := $(if $(VERBOSE),,@)

STAGES := data train evaluate register image deploy smoke load report
SERVICE := status rollback ui logs down batch-score
UPKEEP := doctor shell clean distclean
PROJECT := test test-full bench lint format lock audit base-image toolbox devcontainer-test
VERBS := help all $(STAGES) $(SERVICE) $(UPKEEP) $(PROJECT)
# These change what others read: one make at a time.
LOCKED := all $(STAGES) rollback down clean distclean lock base-image toolbox report-anyway build/%

quote = '$(subst ','\'',$(1))'
GOALS := $(or $(MAKECMDGOALS),help)
UNKNOWN := $(filter-out $(VERBS) $(LOCKED),$(GOALS))
ifneq ($(UNKNOWN),)
$(error $(shell make/env.sh near verb $(call quote,$(VERBS)) $(foreach word,$(UNKNOWN),$(call quote,$(word)))))
endif

# -n and -q look and change nothing.
SHORT_FLAGS := $(filter-out --%,$(firstword -$(MAKEFLAGS)))
LOOK := $(or $(findstring n,$(SHORT_FLAGS)),$(findstring q,$(SHORT_FLAGS)))
ifneq ($(findstring t,$(SHORT_FLAGS)),)
$(error make -t would take undone work for done; `make clean` forgets the records)
endif

NEEDS_LOCK := $(filter $(LOCKED),$(GOALS))
STAGE_GOALS := $(filter all $(STAGES),$(GOALS) $(basename $(notdir $(filter build/%,$(GOALS)))))
# Look without the lock; else take it first and come back here.
MODE := $(if $(NEEDS_LOCK),$(if $(LOOK),check,lock))
ifeq ("$(value SLIPWAY_LOCKED)","$(value CURDIR)")
MODE := $(patsubst lock,write,$(MODE))
endif

# GNU make before 4.4 keeps the variables of its command line from $(shell).
CALL = $(foreach name,$(.VARIABLES),$(if $(filter command,$(firstword $(origin $(name)))),$(name)))
NAMES := $(if $(CALL),$(ONE_CALL) $(shell sed -n 's/^\([A-Z][A-Z0-9_]*\)=.*/\1/p' .env.example))
MISSPELT := $(foreach name,$(filter-out $(NAMES),$(CALL)),$(shell make/env.sh near setting "$(NAMES)" $(name)))
ifneq ($(findstring did you mean,$(MISSPELT)),)
$(error $(MISSPELT))
endif
WITH_CALL = env $(foreach name,$(CALL),$(name)=$(call quote,$($(name))))
SETTINGS := $(if $(MODE),$(shell $(WITH_CALL) make/env.sh settings \
	$(if $(STAGE_GOALS),$(MODE:lock=base),base) "$(STAGES)" "model scoring" "$(STAGE_GOALS)"))
ifneq ($(MODE),$(if $(filter ok,$(SETTINGS)),$(MODE)))
$(error The settings are wrong, see above)
endif
# $(call setting,NAME): a value, or with a colon the list of all values of that kind.
setting = $(patsubst $(1)=%,%,$(filter $(1)=%,$(SETTINGS)))
listed = $(patsubst $(1):%,%,$(filter $(1):%,$(SETTINGS)))

.PHONY: $(VERBS) report-anyway rerun

ifeq ($(MODE),lock)

.PHONY: locked $(GOALS)
$(sort $(GOALS)): locked ;
locked:
	+$(Q)LOCK_WAIT=$(call setting,LOCK_WAIT) make/with-lock.sh make/locked.sh "$(MAKE)" $(GOALS)

else

REC := $(call setting,REC)

##@ Stages, in the order data flows; each does what is missing before it
all: report ## data to report: from the data file to a load-tested service
data: $(REC)/data.json ## Check DATA_PATH against the model room's schema
train: $(REC)/train.json ## Train the candidate; PARAMS="name=value ..." for this call
evaluate: $(REC)/evaluate.json ## Judge candidate and champion on the same holdout
register: $(REC)/register.json ## Make a promoted candidate the next version
image: $(REC)/image.json ## Package the champion as a scoring image; MODEL_VERSION=n another version
deploy: $(REC)/deploy.json ## Put the image into service without losing a request
smoke: $(REC)/smoke.json ## Send the sample request and check the answer and the log
load: $(REC)/load.json ## Load-test the service against its objectives
report: $(REC)/report.json ## One page on the release: build/local/report.html

# The recipe is lines of one command each so that signals reach the stage itself.
STAMPS := $(STAGES:%=$(REC)/.stamps/%)
$(STAMPS): $(REC)/.stamps/%: $(REC)/.settings/% | $(REC)/.stamps
	$(Q)rm -f $@ $(REC)/outcome.json
	$(Q)docker/run.sh python -m scripts.$*
	$(Q)touch $@
# An empty recipe: make looks whether the record changed. -n would take it as changed in any case.
$(STAGES:%=$(REC)/%.json): $(REC)/%.json: $(if $(LOOK),|) $(REC)/.stamps/% ;
$(REC)/.settings/%: ;
$(REC)/.stamps:
	$(Q)mkdir -p $@

MODEL := $(filter model/%,$(call listed,file)) $(REC)/.settings/model.files
SCORING := $(filter scoring/%,$(call listed,file)) $(REC)/.settings/scoring.files
# To package another version nothing before `image` is done, unless it is asked for as well.
REGISTERED := $(if $(MODEL_VERSION),$(filter all report data train evaluate register,$(STAGE_GOALS)),yes)

$(STAMPS): $(REC)/.stamps/%: scripts/%.py
$(REC)/.stamps/data: $(MODEL) scripts/dataset.py
$(REC)/.stamps/train: $(REC)/data.json $(MODEL) docker/locks/toolbox.txt scripts/plots.py
$(REC)/.stamps/evaluate: $(REC)/train.json scripts/judge.py
$(REC)/.stamps/register: $(REC)/evaluate.json
$(REC)/.stamps/image: $(if $(REGISTERED),$(REC)/register.json) $(SCORING) docker/Dockerfile docker/fetch.sh
$(REC)/.stamps/image: docker/locks/scoring-linear.txt docker/locks/scoring.txt docker/locks/scoring-sklearn.txt
$(REC)/.stamps/image: $(wildcard scripts/packaging/*.py)
$(REC)/.stamps/deploy: $(REC)/image.json docker/haproxy.cfg
$(REC)/.stamps/deploy: $(filter-out %/tracking.py %/images.py,$(wildcard scripts/platforms/$(call setting,PLATFORM)/*.py))
$(REC)/.stamps/smoke: $(REC)/deploy.json scripts/answers.py
$(REC)/.stamps/load: $(REC)/deploy.json scripts/swarm.py scripts/latencies.py | $(REC)/smoke.json
$(REC)/.stamps/report: $(patsubst %,$(REC)/%.json,$(filter-out report,$(STAGES)))
$(REC)/.stamps/report: scripts/charts.py $(wildcard scripts/templates/*)

# Whatever else makes a stage undone: the call, a missing record, a data file that is newer or gone,
# an image that could not be built but now can.
FORCED := $(if $(filter-out 0 no false,$(FORCE)),$(filter $(STAGES),$(if $(filter all,$(GOALS)),$(STAGES),$(STAGE_GOALS))))
NEW_ENGINE := $(if $(call listed,engine),$(shell $(WITH_CALL) make/engine.sh 2>/dev/null))
RERUN := $(FORCED) $(call listed,rerun) $(if $(NEW_ENGINE),image)
RERUN += $(if $(strip $(value PARAMS)),train) $(if $(MODEL_VERSION),image deploy)
RERUN += $(foreach stage,$(STAGES),$(if $(wildcard $(REC)/$(stage).json),,$(stage)))
$(patsubst %,$(REC)/.stamps/%,$(sort $(RERUN))): rerun
$(patsubst %,$(REC)/.settings/%,$(call listed,changed)): rerun
# A stage that runs only because it comes before the one asked for is not forced.
$(STAMPS): override export FORCE :=
$(FORCED:%=$(REC)/.stamps/%): override export FORCE := 1

# What `all` does when a stage failed.
report-anyway:
	$(Q)rm -f $(REC)/.stamps/report
	$(Q)docker/run.sh python -m scripts.report after-failure

##@ The service
status: ## What is registered, deployed and healthy, and the last load test
	$(Q)docker/run.sh python -m scripts.status
rollback: ## Serve the previous deployment again
	$(Q)docker/run.sh python -m scripts.rollback
ui: ## MLflow's page: runs and models
	$(Q)docker/run.sh python -m scripts.ui
logs: ## The service's log
	$(Q)docker/run.sh python -m scripts.logs
down: ## Stop the service
	$(Q)docker/run.sh python -m scripts.down
# Takes no lock: it only reads what others write, and locks its OUTPUT itself.
batch-score: ## Score files with the champion: INPUT=file, folder or glob OUTPUT=file; KEEP=columns, PROBABILITIES=1, MODEL_VERSION=n
	$(Q)docker/run.sh python -m scripts.batch_score

##@ Your machine
help: ## This list, and the settings with their present values
	@make/env.sh help
doctor: ## Check everything a run needs, and say how to mend what is wrong
	$(Q)docker/run.sh python -m scripts.doctor
shell: ## A shell in the toolbox
	$(Q)docker/run.sh bash
clean: ## Remove the records; models, deployments and data stay
	$(Q)rm -rf $(REC)
distclean: ## Remove everything made here, the registry too; asks first, or CONFIRM=1
	$(Q)make/distclean.sh

##@ Slipway's own upkeep
test: ## Tests, with the ones that need Docker where there is an engine
	$(Q)docker/run.sh python -m pytest -n 2 --dist loadgroup -m "not slow"
test-full: ## All tests, the slow ones too
	$(Q)docker/run.sh python -m pytest -n 2 --dist loadgroup
bench: ## Measure the service and batch scoring against peers; BENCH_PEERS=all adds more of them
	$(Q)docker/run.sh python -m benchmarks
lint: ## Formatters, types, shell, Dockerfile, import walls, JSON
	$(Q)docker/run.sh make/lint.sh
format: ## Format the code
	$(Q)docker/run.sh make/format.sh
lock: ## Compile the locks; UPGRADE=1 takes the newest releases that fit
	$(Q)docker/run.sh docker/lock.sh
audit: ## Look for known vulnerabilities of what docker/locks pin
	$(Q)docker/run.sh python -m scripts.audit
base-image: ## Get the image that all others start from; FORCE=1 anew
	$(Q)docker/base.sh
toolbox: ## Build the image that the verbs run in
	$(Q)docker/image.sh toolbox
devcontainer-test: ## Bring .devcontainer up and run the tests inside
	$(Q).devcontainer/test.sh

endif
