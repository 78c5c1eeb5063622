# The settings as make needs them: .env.example < model/defaults.env < .env < the environment, an
# empty value counting as unset. Functions only; a main program comes with another -f (see env.sh).
#
# parse() reads a file as python-dotenv does with interpolate=False; it follows the grammar of
# dotenv/parser.py step by step, and works on bytes (LC_ALL=C).

function env_init(  i) {
    # What Python's \s matches in UTF-8 text, without the line end and with it.
    BLANK = "([\t\013\014 \034-\037]|\302\205|\302\240|\341\232\200" \
            "|\342\200[\200-\212\250\251\257]|\342\201\237|\343\200\200)"
    SPACE = "(\n|" BLANK ")"
    for (i = 1; i < 256; i++) HEX[sprintf("%c", i)] = sprintf("%%%02X", i)
    ESCAPE["\\"] = "\\"; ESCAPE["'"] = "'"; ESCAPE["\""] = "\""
    ESCAPE["a"] = "\007"; ESCAPE["b"] = "\010"; ESCAPE["f"] = "\014"; ESCAPE["n"] = "\n"
    ESCAPE["r"] = "\r"; ESCAPE["t"] = "\t"; ESCAPE["v"] = "\013"
}

# One word that make and sh can take as it is: all but plain characters as %XX.
function encode(text,   i, c, out) {
    if (text !~ /[^A-Za-z0-9_.\/,@+-]/) return text
    for (i = 1; (c = substr(text, i, 1)) != ""; i++)
        out = out (c ~ /[A-Za-z0-9_.\/,@+-]/ ? c : HEX[c])
    return out
}

# One word of sh that means `text`.
function quote(text) {
    gsub(/'/, "'\\''", text)
    return "'" text "'"
}

# The file's lines, or "" if it cannot be read.
function slurp(file,   line, text) {
    while ((getline line < file) > 0) text = text line "\n"
    close(file)
    return text
}

# Drop what `pattern` matches at the start of REST.
function skip(pattern) {
    if (match(REST, "^" pattern)) REST = substr(REST, RLENGTH + 1)
}

# Drop the rest of the line, but not its end.
function skip_line(  end) {
    end = index(REST, "\n")
    REST = end ? substr(REST, end) : ""
}

# Fill found[key] from the file; a key without `=` gets "". A wrong line gives
# nothing: the verbs complain of it.
function parse(file, found) {
    REST = slurp(file)
    gsub(/\r\n?/, "\n", REST)
    if (substr(REST, 1, 3) == "\357\273\277") REST = substr(REST, 4)
    while (1) {
        skip(SPACE "+")
        if (REST == "") return
        skip("export" BLANK "+")
        if (binding()) {
            if (KEY != "") found[KEY] = VALUE_READ
        } else {
            skip_line()
            REST = substr(REST, 2)
        }
    }
}

# Read `key = value # comment` up to the line's end into KEY and VALUE_READ; 0 if it is none.
function binding(  end, spaced, before) {
    KEY = VALUE_READ = ""
    if (REST ~ /^'/) {
        end = index(substr(REST, 2), "'")
        if (end < 2) return 0
        KEY = substr(REST, 2, end - 1)
        REST = substr(REST, end + 2)
    } else if (REST !~ /^#/) {
        if (!match(REST, "[=#]|" SPACE)) RSTART = length(REST) + 1
        if (RSTART == 1) return 0
        KEY = substr(REST, 1, RSTART - 1)
        REST = substr(REST, RSTART)
    }
    skip(BLANK "+")
    if (REST ~ /^=/) {
        REST = substr(REST, 2)
        before = length(REST)
        skip(BLANK "+")
        spaced = length(REST) < before
        if (REST ~ /^['"]/) {
            if (!quoted(substr(REST, 1, 1))) return 0
        } else if (!(spaced && REST ~ /^#/)) {
            unquoted()
        }
    }
    skip(BLANK "+")
    if (REST ~ /^#/) skip_line()
    if (REST != "" && REST !~ /^\n/) return 0
    REST = substr(REST, 2)
    return 1
}

function unquoted(  end) {
    end = index(REST, "\n")
    VALUE_READ = end ? substr(REST, 1, end - 1) : REST
    REST = end ? substr(REST, end) : ""
    if (match(VALUE_READ, BLANK "+#")) VALUE_READ = substr(VALUE_READ, 1, RSTART - 1)
    if (match(VALUE_READ, BLANK "+$")) VALUE_READ = substr(VALUE_READ, 1, RSTART - 1)
}

function quoted(mark,   i, c, out) {
    for (i = 2; (c = substr(REST, i, 1)) != mark; i++) {
        if (c == "\\") {
            c = substr(REST, ++i, 1)
            if (c in ESCAPE && (mark == "\"" || c == "'" || c == "\\")) c = ESCAPE[c]
            else c = "\\" c
        }
        if (i > length(REST)) return 0
        out = out c
    }
    VALUE_READ = out
    REST = substr(REST, i + 1)
    return 1
}

# Read .env.example: NAMES[1..COUNT] in order and, by name, GROUP, ABOUT (the comment), READ_BY
# (",verb,verb,"), SECRET, and the default in VALUE.
function declare(file,   line, group, about, fresh, name) {
    while ((getline line < file) > 0) {
        if (line ~ /^## /) {
            group = substr(line, 4)
        } else if (line ~ /^# /) {
            about = fresh ? about " " substr(line, 3) : substr(line, 3)
            fresh = 1
        } else if (line ~ /^[A-Z][A-Z0-9_]*=/) {
            # Variables one below the other share the comment above them.
            fresh = 0
            name = substr(line, 1, index(line, "=") - 1)
            NAMES[++COUNT] = name
            GROUP[name] = group
            ABOUT[name] = about
            SECRET[name] = about ~ /(^| )Secret\./
            READ_BY[name] = ","
            if (match(about, /Read by: [^.]*\./)) {
                READ_BY[name] = "," substr(about, RSTART + 9, RLENGTH - 10) ","
                gsub(/ /, "", READ_BY[name])
            }
            VALUE[name] = substr(line, length(name) + 2)
            ORIGIN[name] = "default"
        }
    }
    close(file)
}

# Lay the settings in `layer` over those there are.
function overlay(layer, origin,   i, name) {
    for (i = 1; i <= COUNT; i++) {
        name = NAMES[i]
        if (name in layer && layer[name] != "") {
            VALUE[name] = layer[name] ""
            ORIGIN[name] = origin
        }
    }
}

function load_settings(  model, own) {
    env_init()
    declare(".env.example")
    parse("model/defaults.env", model)
    overlay(model, "model/defaults.env")
    parse(".env", own)
    overlay(own, ".env")
    overlay(ENVIRON, "environment")
}
