# What to say of words that are not known: near.awk KIND KNOWN WORD..., KIND being verb or setting.

function least(a, b) { return a < b ? a : b }

# Edits that turn `a` into `b`: insert, drop or replace a letter, or swap two neighbours.
function distance(a, b,   i, j, d, same) {
    for (i = 0; i <= length(a); i++) d[i, 0] = i
    for (j = 0; j <= length(b); j++) d[0, j] = j
    for (i = 1; i <= length(a); i++)
        for (j = 1; j <= length(b); j++) {
            same = substr(a, i, 1) == substr(b, j, 1)
            d[i, j] = least(least(d[i - 1, j], d[i, j - 1]) + 1, d[i - 1, j - 1] + !same)
            if (i > 1 && j > 1 && substr(a, i - 1, 2) == substr(b, j, 1) substr(b, j - 1, 1))
                d[i, j] = least(d[i, j], d[i - 2, j - 2] + 1)
        }
    return d[length(a), length(b)]
}

BEGIN {
    count = split(ARGV[2], known, " ")
    for (i = 3; i < ARGC; i++) {
        near = ""
        for (j = 1; j <= count; j++)
            if (distance(ARGV[i], known[j]) <= 1 + (length(known[j]) > 5))
                near = near (near == "" ? "" : " or ") known[j]
        print "there is no " ARGV[1] " " ARGV[i] (near == "" ? "" : "; did you mean " near "?")
    }
    print "(`make help` lists them)"
    exit 0
}
