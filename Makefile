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
	WAIT BENCH_PEERS BENCH_SECONDS BENCH_ROUNDS
PARAMS ?=
FORCE ?=
MODEL_VERSION ?=
VERBOSE ?=
SLIPWAY_LOCKED ?=
Q := $(if $(VERBOSE),,@)

STAGES := data train evaluate register image deploy smoke load report
SERVICE := status rollback ui logs down batch-score
PLACE := login what-if provision destroy publish-pipeline run-pipeline sandbox
UPKEEP := doctor shell clean distclean
PROJECT := test test-azure test-full bench lint format lock audit base-image toolbox devcontainer-test
VERBS := help all $(STAGES) $(SERVICE) $(PLACE) $(UPKEEP) $(PROJECT)
# These change what others read: one make at a time.
LOCKED := all $(STAGES) provision destroy publish-pipeline run-pipeline rollback down clean distclean lock base-image toolbox report-anyway build/%

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
verb_of = $(firstword $(subst -, ,$(1)))
ASKED := $(GOALS) $(foreach file,$(filter build/%,$(GOALS)),$(call verb_of,$(basename $(notdir $(file)))))
STAGE_GOALS := $(filter all provision $(STAGES),$(ASKED))
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
# What `all` does here, in order: the stages, each as often and with what the platform adds.
STEPS := $(call listed,step)
# $(call step,VERB): the step that the verb itself is.
step = $(lastword $(filter $(1) $(1)-%,$(STEPS)))
record = $(REC)/$(call step,$(1)).json
DEPLOYS := $(filter deploy%,$(STEPS))
# What comes before production is told its target, which is not the one that is set.
QA := $(if $(word 2,$(DEPLOYS)),$(filter %-$(lastword $(subst -, ,$(firstword $(DEPLOYS)))),$(STEPS)))

##@ Stages, in the order data flows; each does what is missing before it
all: report ## data to report: from the data file to a load-tested service
data: $(REC)/data.json ## Check DATA_PATH against the model room's schema
train: $(REC)/train.json ## Train the candidate; PARAMS="name=value ..." for this call
evaluate: $(REC)/evaluate.json ## Judge candidate and champion on the same holdout
register: $(REC)/register.json ## Make a promoted candidate the next version
image: $(REC)/image.json ## Package the champion as a scoring image; MODEL_VERSION=n another version
deploy: $(call record,deploy) ## Put the image into service without losing a request
smoke: $(call record,smoke) ## Send the sample request and check the answer and the log
load: $(call record,load) ## Load-test the service against its objectives
report: $(REC)/report.json ## One page on the release: build/local/report.html

# The recipe is lines of one command each so that signals reach the stage itself.
STAMPS := $(STEPS:%=$(REC)/.stamps/%)
$(STAMPS): $(REC)/.stamps/%: $(REC)/.settings/% | $(REC)/.stamps
	$(Q)rm -f $@ $(REC)/outcome.json
	$(Q)$(if $(filter $(QA),$(@F)),DEPLOY_TARGET=$(lastword $(subst -, ,$(@F))) )docker/run.sh python -m scripts.$(call verb_of,$(@F))
	$(Q)touch $@
# An empty recipe: make looks whether the record changed. -n would take it as changed in any case.
$(STEPS:%=$(REC)/%.json): $(REC)/%.json: $(if $(LOOK),|) $(REC)/.stamps/% ;
$(REC)/.settings/%: ;
$(REC)/.stamps:
	$(Q)mkdir -p $@

MODEL := $(filter model/%,$(call listed,file)) $(REC)/.settings/model.files
SCORING := $(filter scoring/%,$(call listed,file)) $(REC)/.settings/scoring.files
# To package another version nothing before `image` is done, unless it is asked for as well.
REGISTERED := $(if $(MODEL_VERSION),$(filter all report data train evaluate register,$(STAGE_GOALS)),yes)

$(foreach step,$(STEPS),$(eval $(REC)/.stamps/$(step): scripts/$(call verb_of,$(step)).py))
$(REC)/.stamps/data: $(MODEL) scripts/dataset.py
$(REC)/.stamps/train: $(REC)/data.json $(MODEL) docker/locks/toolbox.txt scripts/plots.py
$(REC)/.stamps/evaluate: $(REC)/train.json scripts/judge.py
$(REC)/.stamps/register: $(REC)/evaluate.json
$(REC)/.stamps/image: $(if $(REGISTERED),$(REC)/register.json) $(SCORING) docker/Dockerfile docker/fetch.sh
$(REC)/.stamps/image: docker/locks/scoring-linear.txt docker/locks/scoring.txt docker/locks/scoring-sklearn.txt
$(REC)/.stamps/image: $(wildcard scripts/packaging/*.py)

# What serves: deployed, asked and loaded once for each target, one target after the other.
$(DEPLOYS:%=$(REC)/.stamps/%): $(REC)/image.json docker/haproxy.cfg
$(DEPLOYS:%=$(REC)/.stamps/%): $(filter-out %/tracking.py %/images.py,$(wildcard scripts/platforms/$(call setting,PLATFORM)/*.py))
$(patsubst deploy%,$(REC)/.stamps/smoke%,$(DEPLOYS)): $(REC)/.stamps/smoke%: $(REC)/deploy%.json scripts/answers.py
$(REC)/.stamps/$(call step,load): $(call record,deploy) scripts/swarm.py scripts/latencies.py | $(call record,smoke)
$(if $(QA),$(REC)/.stamps/$(call step,deploy)): | $(if $(QA),$(REC)/$(lastword $(QA)).json)
$(REC)/.stamps/report: $(patsubst %,$(REC)/%.json,$(filter-out report,$(STEPS)))
$(REC)/.stamps/report: scripts/charts.py $(wildcard scripts/templates/*)

# What a platform must have before anything else. Only what is deployed depends on how it is made.
ifneq ($(filter provision,$(STEPS)),)
$(REC)/.stamps/provision: arm/main.json
$(REC)/.stamps/data: | $(REC)/provision.json
$(DEPLOYS:%=$(REC)/.stamps/%): $(REC)/provision.json $(filter-out arm/main.json,$(wildcard arm/*.json arm/aks/*))
endif

# Whatever else makes a stage undone: the call, a missing record, a data file that is newer or gone,
# an image that could not be built but now can.
FORCED := $(if $(filter-out 0 no false,$(FORCE)),$(if $(filter all,$(GOALS)),$(STEPS),$(foreach verb,$(STAGE_GOALS),$(call step,$(verb)))))
NEW_ENGINE := $(if $(call listed,engine),$(shell $(WITH_CALL) make/engine.sh 2>/dev/null))
# What was provisioned may have been deleted since, in the portal: the verb itself always asks.
RERUN := $(FORCED) $(filter provision,$(GOALS)) $(call listed,rerun) $(if $(NEW_ENGINE),image)
RERUN += $(if $(strip $(value PARAMS)),train) $(if $(MODEL_VERSION),image $(DEPLOYS))
RERUN += $(foreach step,$(STEPS),$(if $(wildcard $(REC)/$(step).json),,$(step)))
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

##@ The platform, where it needs one (PLATFORM=azure)
login: ## Sign in: service principal, managed identity, a CI job's token, or you
	$(Q)docker/run.sh python -m scripts.login
what-if: ## What provision would change
	$(Q)docker/run.sh python -m scripts.what_if
ifneq ($(filter provision,$(STEPS)),)
provision: $(REC)/provision.json ## Make what is missing, from arm/
else
provision:
	$(Q)docker/run.sh python -m scripts.provision
endif
destroy: ## Remove all that provision made; asks for the group's name, or CONFIRM=name
	$(Q)docker/run.sh python -m scripts.destroy
publish-pipeline: ## Publish train, evaluate and register as a pipeline, version BUILD_BUILDID
	$(Q)docker/run.sh python -m scripts.publish_pipeline
run-pipeline: ## Run the published pipeline and wait; WAIT=0 only names it for a CI job
	$(Q)docker/run.sh python -m scripts.run_pipeline
sandbox: ## A stand-in for Azure on this machine, to see the flow before paying for it
	$(Q)PLATFORM=azure docker/run.sh python -m tests.azure.standin

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
	$(Q)docker/run.sh python -m pytest -n 2 --dist loadgroup -m "not slow and not azure"
test-azure: ## The tests against the stand-in for Azure; RUNNER=venv or here
	$(Q)PLATFORM=azure docker/run.sh python -m pytest -n 2 --dist loadfile -m "azure and not slow"
test-full: ## All tests, the slow ones too; those of Azure with RUNNER=venv or here
	$(Q)docker/run.sh python -m pytest -n 2 --dist loadgroup -m "not azure"
	$(Q)PLATFORM=azure docker/run.sh python -m pytest -n 2 --dist loadfile -m azure
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
