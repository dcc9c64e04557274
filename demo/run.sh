#!/usr/bin/env bash
# `make demo`: Deed from the first statement to a forgery that does not pass, against a real
# server on a free port of 127.0.0.1. Leaves no process and no file behind.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/server.sh
source scripts/server.sh

readonly ledger=shop
bold='' dim='' plain=''
if [[ -t 1 ]]; then
    bold=$'\e[1m' dim=$'\e[2m' plain=$'\e[0m'
fi

main() {
    say 'Deed is a ledger of what AI agents did. Watch it from the first statement' \
        'to a forgery that does not pass.'

    step 'A server, on an empty directory'
    start_server "$tmp/data"
    say "It listens on $server_address. It made its own name and keys."
    export DEED_SERVER=http://$server_address DEED_LEDGER=$ledger

    step 'A ledger'
    say 'The client makes its authority key: the operator of the server is not' \
        "the ledger's owner."
    run ledger create "$ledger"

    step 'A refund agent reports what it does'
    say 'A customer got a broken parcel. The agent states what it is about to do,' \
        'does it, and states the result. Each statement gets a receipt.'
    stream refund-agent
    say 'The receipt of the refund itself:'
    json_lines <<<"${receipts[5]}"
    refund_leaf=$(json_field leaf_index <<<"${receipts[5]}")

    step 'A deploy agent reports what it does'
    say 'A new version goes to production, errors rise, it is rolled back.'
    stream deploy-agent

    step 'The head: one signed note commits to everything'
    run head
    say 'The ledger as it was before the deploy agent came is a prefix of it:'
    run consistency 13 24

    step 'The same statements again: nothing is recorded twice'
    shell "deed append < refund-agent.jsonl"
    "$deed" append <"$tmp/refund-agent.jsonl" | sed 's/.*"status":"\([a-z]*\)".*/\1/' |
        sort | uniq -c | fit

    step 'A proof, for somebody who trusts neither us nor the server'
    run prove --index "$refund_leaf" --out "$tmp/refund.tlog-proof" \
        --entry-out "$tmp/refund.entry" --policy-out "$tmp/policy"
    say 'It is a short text:'
    fit <"$tmp/refund.tlog-proof"
    say 'It verifies offline. No server is asked:'
    run verify "$tmp/refund.tlog-proof" --entry "$tmp/refund.entry" --policy "$tmp/policy"

    step 'A forger changes 4711 to 4710 in the recorded entry'
    change_byte "$tmp/refund.entry" "$(offset_of 4711 "$tmp/refund.entry" 3)" 0 "$tmp/forged.entry"
    fails verify "$tmp/refund.tlog-proof" --entry "$tmp/forged.entry" --policy "$tmp/policy"

    step 'A forger changes one character of the proof'
    change_hash "$tmp/refund.tlog-proof" "$tmp/forged.tlog-proof"
    fails verify "$tmp/forged.tlog-proof" --entry "$tmp/refund.entry" --policy "$tmp/policy"

    step "A mail agent gets a key: from here on its statements need its signature"
    run keygen --out "$tmp/mail-agent.key"
    run key register "$tmp/mail-agent.key" --role agent \
        --producer spiffe://shop.example/agent/mail --controller https://shop.example
    run key list

    step 'It signs its statements, and attaches the mail'
    say 'The mail itself stays out of the log. The server keeps it encrypted beside it.'
    shell "deed append --key mail-agent.key < mail-agent.jsonl"
    "$deed" append --key "$tmp/mail-agent.key" <demo/scenario/mail-agent.jsonl >"$tmp/mail.receipts"
    sed 's/.*"status":"\([a-z]*\)".*/\1/' "$tmp/mail.receipts" | sort | uniq -c | fit
    mail_leaf=$(sed -n 2p "$tmp/mail.receipts" | json_field leaf_index)
    "$deed" --json entry "$mail_leaf" >"$tmp/mail.json" 2>/dev/null
    mail=$(grep -o '"arguments": *{[^}]*}' "$tmp/mail.json" | grep -o '[0-9a-f]\{64\}')

    step 'A forger without the key makes a statement in its name'
    shell "deed append < forged.jsonl"
    forged='{"producer": "spiffe://shop.example/agent/mail", "task": "91d2a7c04e5b4f3e8d16b0c7f2a93e58",'
    forged+=' "intent": {"action": "mail.send", "resource": "tickets/1"}}'
    if "$deed" append <<<"$forged" >"$tmp/said" 2>&1; then
        die 'a forged statement was accepted'
    fi
    grep -o '"reason":"[^"]*"' "$tmp/said" | fit

    step 'The customer wants the mail to be forgotten'
    run content get "$mail"
    run content erase "$mail" --requested-by ticket:90001 --reason 'asked to be forgotten' \
        --legal-basis 'GDPR Art. 17(1)(b)'
    refused content get "$mail"
    say 'The statement is still there. Its proof is checked offline, up to its batch and its signature:'
    run prove --index "$mail_leaf" --batch --out "$tmp/mail.batch-proof" \
        --policy-out "$tmp/policy.2" --trust-out "$tmp/trust"
    run verify "$tmp/mail.batch-proof" --batch --policy "$tmp/policy.2" --trust "$tmp/trust"

    proof_of_action

    step 'The server stops; its directory is checked against its entries'
    stop_server
    shell "deed-server fsck --data-dir data"
    "$deed_server" fsck --data-dir "$tmp/data" 2>&1 | fit

    step 'Done'
    say 'Nothing is left running. README.md and docs/producers.md say how to do this by hand.'
}

# Shows two tasks under a policy: one without findings, and one with some.
proof_of_action() {
    step 'The parties of an act: each has a key, and a controller of its own'
    local role
    for role in platform agent approver policy-engine downstream-system; do
        "$deed" keygen --out "$tmp/$role.key" >/dev/null 2>&1
        # A system's statements prove something about its own resources only.
        local own=()
        [[ $role != downstream-system ]] || own=(--resource 'orders/*' --resource 'accounts/*')
        "$deed" key register "$tmp/$role.key" --role "$role" \
            --producer "spiffe://shop.example/$role" --controller "https://$role.example" \
            "${own[@]}" >/dev/null 2>&1
        printf 'registered: %s\n' "$role" | fit
    done
    say 'Cedar policies say which evidence an act needs, by the risk of its task:'
    run policy set --default

    step 'A task, a grant for it, and an act that has to wait'
    open_task 'refund order 7'
    act "$task" payments.refund orders/7
    say "A policy engine and an approver of another organisation decide about this Intent:"
    run decide "$intent" allow --key "$tmp/policy-engine.key" --engine opa
    run approve "$intent" --yes --strength multi-factor --key "$tmp/approver.key"
    say 'Now the act may be done. The agent records the result, the bank what it observed:'
    outcome "$intent" orders/7
    run observe --intent "$intent" --key "$tmp/downstream-system.key" --reference tx-99 \
        --effect "$effect"
    run task close "$task" --end completed
    # This output is made for 80 columns, and shown unchanged.
    shell "deed task show $task"
    "$deed" task show "$task"
    expect_findings "$task" ''

    step 'A task with a hidden effect'
    open_task 'refund order 8'
    act "$task" payments.refund orders/8
    "$deed" decide "$intent" allow --key "$tmp/policy-engine.key" --engine opa >/dev/null 2>&1
    "$deed" approve "$intent" --yes --key "$tmp/approver.key" >/dev/null 2>&1
    say 'One refund was cleared. The bank observes it, and another one that nobody declared:'
    outcome "$intent" orders/8
    run observe --intent "$intent" --key "$tmp/downstream-system.key" --effect "$effect" \
        --effect kind=payment.refunded,resource=accounts/mallory,amount=99000,currency=EUR
    run task close "$task" --end completed
    say 'And the agent acts once more, after its task has ended:'
    act "$task" payments.refund orders/9
    run findings --task "$task"
    expect_findings "$task" 'hidden_side_effect task_closed'

    step 'An auditor who trusts no one checks the whole ledger'
    say 'Every signature, session, grant, clearance, receipt and head is judged again:'
    run audit
}

# open_task OBJECTIVE: opens a task with a grant in it. Sets task and grant.
open_task() {
    shell "deed task open --tier payment --objective '$1' .."
    task=$("$deed" --json task open --key "$tmp/platform.key" --tier payment --objective "$1" \
        --requested-by ticket:12 2>/dev/null | json_field task)
    printf 'task %s\n' "$task" | fit
    shell "deed grant --task $task --action payments.refund --resource 'orders/*' .."
    grant=$("$deed" --json grant --task "$task" --subject spiffe://shop.example/agent \
        --action payments.refund --resource 'orders/*' --uses 3 --amount 10000 --currency EUR \
        --expires 1h 2>/dev/null | json_field leaf_index)
    printf 'grant at leaf %s\n' "$grant" | fit
}

# act TASK ACTION RESOURCE: records the agent's Intent. Sets intent.
act() {
    printf '{"order": "%s", "cents": 4711}' "$3" >"$tmp/arguments.json"
    printf 'The customer asks for the money back.' >"$tmp/prompt.txt"
    shell "deed intend --task $1 --action $2 --resource $3 --grant $grant .."
    # The command exits with 1 if the Intent is denied.
    "$deed" --json intend --key "$tmp/agent.key" --task "$1" --action "$2" --resource "$3" \
        --amount 4711 --currency EUR --grant "$grant" --arguments "$tmp/arguments.json" \
        --prompt "$tmp/prompt.txt" --model model-1 >"$tmp/intent.json" 2>"$tmp/complaint" || true
    intent=$(json_field leaf_index <"$tmp/intent.json")
    printf 'leaf %s: %s\n' "$intent" "$(json_field state <"$tmp/intent.json")" | fit
}

# outcome INTENT RESOURCE: records the act's Outcome. Sets effect.
outcome() {
    effect="kind=payment.refunded,resource=$2,amount=4711,currency=EUR"
    printf '{"status": "ok"}' >"$tmp/result.json"
    run complete "$1" succeeded --key "$tmp/agent.key" --effect "$effect" \
        --tool-call "$tmp/arguments.json" --response "$tmp/result.json" --result "$tmp/result.json"
}

# expect_findings TASK KINDS: checks that the task has findings of exactly these kinds.
expect_findings() {
    local found
    found=$("$deed" --json findings --task "$1" 2>/dev/null |
        sed -n 's/.*"kind": *"\([a-z_]*\)".*/\1/p' | sort -u | tr '\n' ' ')
    [[ ${found% } == "$2" ]] || die "found '${found% }', wanted '$2'"
}

# stream AGENT: sends an agent's statements one after the other through one `deed append`, as its
# tool gateway would, and prints each with its receipt. Sets receipts, and keeps the statements.
#
# An outcome names its intent by the digest of that statement's bytes, which depend on the ledger:
# "@3" in the scenario stands for the digest of the statement with sequence 3.
stream() {
    local line place leaf sequence receipt
    local -a digests=()
    receipts=()
    shell "deed append < $1.jsonl"
    coproc appending { "$deed" append 2>"$tmp/append.err"; }
    local to=${appending[1]} from=${appending[0]} pid=$!
    while read -r line; do
        if [[ $line =~ \"@([0-9]+)\" ]]; then
            place=${BASH_REMATCH[1]}
            line=${line/@$place/${digests[place]}}
        fi
        printf '%s\n' "$line" >&"$to"
        read -r -t 30 -u "$from" receipt || {
            tail -n 5 "$tmp/append.err" >&2
            die "no receipt"
        }
        [[ $receipt == *'"status":"accepted"'* ]] || die "not accepted: $receipt"
        receipts+=("$receipt")
        printf '%s\n' "$line" >>"$tmp/$1.jsonl"
        leaf=$(json_field leaf_index <<<"$receipt")
        sequence=$(json_field sequence <<<"$receipt")
        if [[ $line == *'"intent": {"action"'* ]]; then
            "$deed" entry "$leaf" --raw "$tmp/entry" >/dev/null 2>&1
            digests[sequence]=$(payload_digest "$tmp/entry")
        fi
        printf 'leaf %2d  %.8s..  %s\n' "$leaf" "$(json_field leaf_hash <<<"$receipt")" \
            "$(in_words "$line")" | fit
    done <"demo/scenario/$1.jsonl"
    exec {to}>&-
    wait "$pid" || die "$(tail -n 5 "$tmp/append.err")"
}

# in_words STATEMENT: prints the gist of a statement in JSON.
in_words() {
    sed -E <<<"$1" \
        -e 's/.*"objective_text": "([^"]*)".*/task opened   \1/' \
        -e 's/.*"intent": \{"action": "([^"]*)", "resource": "([^"]*)".*/intent        \1 \2/' \
        -e 's/.*"status": "([^"]*)".*/outcome       \1/' \
        -e 's/.*"task_closed": \{"end": "([^"]*)".*/task closed   \1/' \
        -e 's/.*"heartbeat".*/heartbeat/' \
        -e 's/.*"session_closed".*/session closed/'
}

# payload_digest ENTRY_FILE: prints SHA-256 of the statement in a deed.v1.Entry, whose first field is the
# payload's type (2 bytes) and whose second one is the payload (a tag, its length as a varint).
payload_digest() {
    local -a head
    read -r -a head < <(od -An -tu1 -N5 "$1")
    local length=${head[3]} start=5
    if ((length >= 128)); then
        length=$(((length & 127) + (head[4] << 7))) start=6
    fi
    tail -c +"$start" "$1" | head -c "$length" | sha256sum | cut -d' ' -f1
}

# offset_of TEXT FILE [PLUS]: prints the offset of the first TEXT in FILE, in bytes from 0, plus PLUS.
offset_of() {
    local offset
    offset=$(LC_ALL=C grep --only-matching --byte-offset --text --fixed-strings "$1" "$2" | head -n 1)
    echo $((${offset%%:*} + ${3:-0}))
}

# change_byte FILE OFFSET BYTE RESULT: makes a copy with another byte at that offset.
change_byte() {
    cp "$1" "$4"
    printf '%s' "$3" | dd of="$4" bs=1 seek="$2" conv=notrunc status=none
    [[ $(cmp -l "$1" "$4" | wc -l) == 1 ]] || die "not exactly one byte was changed"
}

# change_hash PROOF RESULT: makes a copy with another first character of the first hash.
change_hash() {
    local offset other=A
    offset=$(head -n 2 "$1" | wc -c)
    [[ $(tail -c +$((offset + 1)) "$1" | head -c 1) != A ]] || other=B
    change_byte "$1" "$offset" "$other" "$2"
}

# run ARGUMENTS...: runs deed; shows the command and its output.
run() {
    local status=0
    shell "deed ${*//"$tmp/"/}"
    "$deed" "$@" >"$tmp/said" 2>"$tmp/complaint" || status=$?
    ((status == 0)) || cat "$tmp/complaint" >>"$tmp/said"
    # A content may end without a line feed.
    sed -e "s|$tmp/||g" -e '$a\' "$tmp/said" | fit
    return "$status"
}

# fails ARGUMENTS...: does the same for a command that must find that something does not verify.
fails() {
    local status=0
    run "$@" || status=$?
    ((status == 1)) || die "deed ended with $status, not with 1"
    say 'Exit status 1.'
}

# refused ARGUMENTS...: does the same for a command that the server must refuse.
refused() {
    local status=0
    run "$@" || status=$?
    ((status == 3)) || die "deed ended with $status, not with 3"
    say 'Exit status 3.'
}

step() { printf '\n%s== %s%s\n' "$bold" "$1" "$plain"; }
say() { printf '%s\n' "$@"; }
# Shows a command on as many lines as it needs.
shell() {
    local line=$dim'$ '$1$plain
    fold -s -w 76 <<<"$line" | sed -E -e '$!s/ *$/ \\/' -e '2,$s/^/      /'
}
# Fits text into 80 columns: in lines that are wider, hashes and keys are cut and the rest wrapped.
fit() {
    sed -E '/^.{79}/s/([^ ]{24})[^ ]{16,}/\1../g' | fold -s -w 78 | sed 's/^/  /'
}
# Prints one member of a flat JSON object on each line.
json_lines() { sed -E -e 's/^\{|\}$//g' -e 's/,"/\n"/g' | fit; }

main
