# The page of `make help`: verbs from the Makefile's `##` comments, settings with their values.

function bold(text) { return colour ? "\033[1m" text "\033[0m" : text }
function cyan(text) { return colour ? "\033[36m" text "\033[0m" : text }
function faint(text) { return colour ? "\033[2m" text "\033[0m" : text }

function verbs(   line, verb) {
    while ((getline line < "Makefile") > 0) {
        if (line ~ /^##@ /) {
            print "\n" bold(substr(line, 5))
        } else if (line ~ /^[a-z-]+:.* ## /) {
            verb = substr(line, 1, index(line, ":") - 1)
            sub(/.* ## /, "", line)
            print "  " cyan(sprintf("%-18s", verb)) " " line
        }
    }
}

# A value as one line that a terminal can show.
function shown(text) {
    gsub(/[\001-\037\177]/, "?", text)
    return text
}

function settings(   i, key, value, group) {
    for (i = 1; i <= COUNT; i++) {
        key = NAMES[i]
        if (GROUP[key] != group) {
            group = GROUP[key]
            print "\n" bold(group)
        }
        value = SECRET[key] ? (VALUE[key] == "" ? "unset" : "set") : shown(VALUE[key])
        if (value == "") value = "-"
        print "  " cyan(sprintf("%-28s", key)) " " value \
            (ORIGIN[key] == "default" ? "" : faint("  (" ORIGIN[key] ")"))
    }
}

BEGIN {
    load_settings()
    print "make VERB [NAME=value ...]"
    verbs()
    print "\n" bold("Settings") ", from the environment, .env, model/defaults.env or .env.example, which explains them"
    settings()
    print "\n" bold("For one call") ": PARAMS= FORCE=1 MODEL_VERSION= CONFIRM=1 WAIT=0 UPGRADE=1 VERBOSE=1" \
        " INPUT= OUTPUT= KEEP= PROBABILITIES=1 BENCH_*="
    exit 0
}
