#!/usr/bin/env bash
# Checks that every relative link of every Markdown file leads to a file, and every anchor to a
# heading. Prints each one that does not, and ends with 1. Links to other hosts are not followed.
set -euo pipefail
cd "$(dirname "$0")/.."

# Prints the anchors of a Markdown file, as GitHub makes them of headings: lower case, without
# punctuation, hyphens for spaces, numbered where they repeat.
anchors() {
    awk '
        /^```/ { code = !code }
        code || !/^#+ / { next }
        {
            sub(/^#+ +/, ""); sub(/ +$/, "")
            slug = tolower($0)
            gsub(/[^a-z0-9 _-]/, "", slug); gsub(/ /, "-", slug)
            print slug (seen[slug]++ ? "-" seen[slug] - 1 : "")
        }' "$1"
}

# Prints line number and target of each link of a Markdown file: [text](target), not in code.
targets() {
    awk '
        /^```/ { code = !code }
        code || /^    / { next }
        {
            gsub(/`[^`]*`/, "code")
            while (match($0, /\]\([^) ]+\)/)) {
                print NR, substr($0, RSTART + 2, RLENGTH - 3)
                $0 = substr($0, RSTART + RLENGTH)
            }
        }' "$1"
}

broken=0
mapfile -t pages < <(git ls-files --cached --others --exclude-standard -- '*.md')
for page in "${pages[@]}"; do
    while read -r line target; do
        [[ $target != *://* && $target != mailto:* ]] || continue
        path=${target%%#*} anchor=''
        [[ $target != *'#'* ]] || anchor=${target#*#}
        file=$page
        [[ -z $path ]] || file=$(dirname "$page")/$path
        if [[ ! -e $file ]]; then
            printf '%s:%s: %s: no such file\n' "$page" "$line" "$target" >&2
            broken=1
        elif [[ -n $anchor ]] && ! anchors "$file" | grep -qxF -- "$anchor"; then
            printf '%s:%s: %s: no such heading\n' "$page" "$line" "$target" >&2
            broken=1
        fi
    done < <(targets "$page")
done
exit "$broken"
