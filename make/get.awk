# Settings as sh assignments, quoted: eval "$(make/env.sh get NAME...)"

BEGIN {
    load_settings()
    for (i = 1; i < ARGC; i++) print ARGV[i] "=" quote(VALUE[ARGV[i]])
    exit 0
}
