# What make/env.awk reads from the files named: one `key=value` a line, both percent-encoded.
BEGIN {
    env_init()
    for (i = 1; i < ARGC; i++) {
        split("", found)
        parse(ARGV[i], found)
        print "file"
        for (key in found) print encode(key) "=" encode(found[key])
    }
    exit 0
}
