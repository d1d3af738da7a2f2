#!/bin/sh
# embed.sh OUTPUT FILE...: writes Swift source that holds every FILE's text under its name.
set -eu
output=$1
shift
{
    echo "// Made from schemas/postgres by Plugins/EmbedMigrations."
    echo "let embeddedMigrations: [(file: String, sql: String)] = ["
    for file in "$@"; do
        printf '    (file: "%s", sql: ###"""\n' "$(basename "$file")"
        cat "$file"
        printf '\n"""###),\n'
    done
    echo "]"
} > "$output"
