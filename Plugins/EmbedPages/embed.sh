#!/bin/sh
# embed.sh OUTPUT FOLDER FILE...: writes Swift source that holds the text of every FILE of FOLDER under its path there.
set -eu
output=$1
folder=$2
shift 2
{
    echo "// Made from Sources/WebPages/Files by Plugins/EmbedPages."
    echo "let embeddedPages: [(path: String, text: String)] = ["
    for file in "$@"; do
        printf '    (path: "%s", text: ###"""\n' "$file"
        cat "$folder/$file"
        printf '\n"""###),\n'
    done
    echo "]"
} > "$output"
