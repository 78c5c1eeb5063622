# What the Makefile asks when it is read: settings.awk MODE STAGES FOLDERS GOALS
#
# MODE base prints PLATFORM=, REC= (where the records lie), RUNNER=, LOCK_WAIT= and step:<name> for
# what `all` does, in order: STAGES as the platform has them. On Azure something is provisioned first,
# and what serves is deployed and tested once for each target, as deploy-aci; QA goes before production.
# MODE write also brings REC/.settings/<step> up to date, one file for each step that GOALS lead
# through with the settings its verb reads, and one for each of FOLDERS with its files' names; MODE
# check prints changed:<file> instead and writes nothing. Both print file:<path> for the files in
# FOLDERS, rerun:data if the data file is newer than what was made of it, and engine:none if the
# scoring image could not be built when it was last tried. The last word is ok, unless a setting that
# make itself needs is wrong.

BEGIN {
    load_settings()
    mode = ARGV[1]
    if (VALUE["PLATFORM"] !~ /^(local|azure)$/) wrong("PLATFORM", "local or azure")
    if (VALUE["LOCK_WAIT"] !~ /^[0-9]+$/) wrong("LOCK_WAIT", "whole seconds, 0 to 86400")
    record = "build/" VALUE["PLATFORM"]
    if (VALUE["PLATFORM"] == "azure") {
        if (VALUE["WORKSPACE_NAME"] !~ /^[A-Za-z0-9][A-Za-z0-9_-]+$/)
            wrong("WORKSPACE_NAME", "3 to 33 letters, digits, _ and -")
        record = record "/" VALUE["WORKSPACE_NAME"]
        if (VALUE["DEPLOY_TARGET"] !~ /^(aci|aks|webapp)$/)
            wrong("DEPLOY_TARGET", "aci, aks or webapp")
    }
    settings = record "/.settings/"
    print "PLATFORM=" VALUE["PLATFORM"], "REC=" record
    print "RUNNER=" encode(VALUE["RUNNER"]), "LOCK_WAIT=" VALUE["LOCK_WAIT"]
    order(ARGV[2])
    for (i = 1; i <= STEPS; i++) print "step:" STEP[i]
    if (mode != "base") inputs(ARGV[3], ARGV[4])
    print "ok"
    exit 0
}

function wrong(name, should) {
    printf "error: %s=%s (from %s) should be %s\n", name, encode(VALUE[name]), ORIGIN[name], should \
        | "cat >&2"
    close("cat >&2")
    exit 2
}

# Fill STEP[1..STEPS] with what `all` does.
function order(stages,   names, count, target, i) {
    target = VALUE["DEPLOY_TARGET"]
    count = split(stages, names, " ")
    if (VALUE["PLATFORM"] == "azure") STEP[++STEPS] = "provision"
    for (i = 1; i <= count; i++) {
        if (VALUE["PLATFORM"] == "azure" && names[i] ~ /^(deploy|smoke|load)$/) {
            if (names[i] == "deploy" && target != "aci" && VALUE["ACI_DEPLOYMENT_NAME"] != "") {
                STEP[++STEPS] = "deploy-aci"
                STEP[++STEPS] = "smoke-aci"
            }
            STEP[++STEPS] = names[i] "-" target
        } else {
            STEP[++STEPS] = names[i]
        }
    }
}

# deploy-aci is the verb deploy.
function verb_of(step) {
    sub(/-.*/, "", step)
    return step
}

function inputs(folders, goals,   names, count, last, i) {
    for (i = 1; i <= STEPS; i++)
        if (index(" " goals " ", " " verb_of(STEP[i]) " ") || goals ~ /(^| )all( |$)/) last = i
    for (i = 1; i <= last; i++) keep(STEP[i], read_by(verb_of(STEP[i])))
    if (last) data_file()
    for (i = 1; i <= last; i++)
        if (STEP[i] == "image" && slurp(record "/image.json") ~ /"engine": *"none"/)
            print "engine:none"
    count = split(folders, names, " ")
    for (i = 1; last && i <= count; i++) keep(names[i] ".files", files(names[i]))
}

# The settings that `verb` reads, as the text to compare: of a secret only its hash.
function read_by(verb,   i, name, text) {
    hidden = 0
    for (i = 1; i <= COUNT; i++) {
        name = NAMES[i]
        if (!index(READ_BY[name], "," verb ",") || VALUE[name] == "") continue
        # How Azure trains and deploys is nothing to another platform.
        if (GROUP[name] ~ /^Azure: (training|deployment)/ && VALUE["PLATFORM"] != "azure") continue
        text = text name "=" (SECRET[name] ? hash(VALUE[name]) : encode(VALUE[name])) "\n"
    }
    # Of the runner it matters only whether the service is a container or a process.
    if (verb == "deploy" && VALUE["RUNNER"] == "venv") text = text "RUNNER=venv\n"
    return text
}

# A secret travels through pipes only: no process list and no file sees it.
function hash(secret,   file, command, line) {
    hidden = 1
    if (secret in HASHES) return HASHES[secret]
    "mktemp" | getline file
    close("mktemp")
    command = "{ sha256sum 2>/dev/null || shasum -a 256; } >" quote(file)
    printf "%s", secret | command
    close(command)
    getline line < file
    close(file)
    system("rm -f " quote(file))
    return HASHES[secret] = "sha256:" substr(line, 1, 64)
}

# Leave `text` in the settings file, or in check mode say that it is not what is there.
function keep(name, text,   file, target) {
    file = settings name
    # An empty file must differ from none.
    text = "# What make " name " depends on besides records.\n" text
    if (slurp(file) == text) return
    if (mode == "check") {
        print "changed:" name
        return
    }
    target = "mkdir -p " quote(settings) " && umask " (hidden ? "077" : "022") " && rm -f " \
        quote(file) " && cat >" quote(file)
    printf "%s", text | target
    if (close(target)) exit 2
}

# Names that make cannot take stand in the list with a checksum instead of being prerequisites.
function files(folder,   command, name, text, checksum, sum) {
    command = "find -L " folder " \\( -name '.?*' -o -name __pycache__ \\) -prune -o -type f" \
        " ! -name '*.pyc' ! -name '*.md' ! -name '*~' ! -path model/defaults.env -print" \
        " 2>/dev/null | sort"
    hidden = 0
    while ((command | getline name) > 0) {
        if (name ~ /[^A-Za-z0-9_.\/@+-]/) {
            checksum = "cksum <" quote(name)
            checksum | getline sum
            close(checksum)
            text = text encode(name) " " sum "\n"
        } else {
            text = text name "\n"
            print "file:" name
        }
    }
    close(command)
    return text
}

# find, not a prerequisite: the path may be missing or hold anything.
function data_file(  path, command, answer) {
    path = VALUE["DATA_PATH"]
    if (path == "") return
    if (path !~ /^\//) path = "./" path
    command = "test -e " quote(path) " || echo missing; find -L " quote(path) " -prune -newer " \
        quote(record "/.stamps/data") " 2>/dev/null"
    command | getline answer
    close(command)
    if (answer != "") print "rerun:data"
}
