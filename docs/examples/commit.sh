#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Commits the active layer of a disk into its base while the guest runs, and moves the disk there.
# To hear signals, busctl has to be a monitor of the bus, which is root's right.
#
# usage: commit.sh /org/blockjobd1/domain/NAME/disk/TARGET
set -uo pipefail

service=org.blockjobd1
disk=${1:?usage: commit.sh DISK-PATH}
job=

give_up() {
    echo "commit.sh: $*" >&2
    exit 1
}

bus() { # COMMAND ARGUMENTS...: one line of JSON
    busctl --json=short --timeout=infinity "$@"
}

get() { # PATH INTERFACE: all properties, as one object of plain values
    bus call $service "$1" org.freedesktop.DBus.Properties GetAll s "$service.$2" |
        jq -ce '.data[0] | map_values(.data)'
}

owner() { # who has the name; nothing where the service is away
    bus call org.freedesktop.DBus /org/freedesktop/DBus org.freedesktop.DBus GetNameOwner s $service 2>/dev/null |
        jq -r '.data[0]'
}

# The job that is there already, since this program or the service was interrupted say; else a new one.
find_or_start() {
    job=$(get "$disk" Disk | jq -er .Job) || return
    if [ "$job" = / ]; then
        job=$(bus call $service "$disk" $service.Disk Commit 'a{sv}' 1 active b true | jq -er '.data[0]') || return
    elif [ "$(get "$job" Job | jq -r .Type)" != active-commit ]; then
        give_up "$job: another job is at work on this disk"
    fi
    echo "job $job"
}

# Where do things stand, and what is due? Fails where the service did not answer as it should.
step() {
    local found source
    [ -n "$job" ] || find_or_start || { job=; return 1; }
    found=$(get "$job" Job) || return
    result=$(jq -r .Result <<<"$found")
    if [ -n "$result" ]; then
        source=$(get "$disk" Disk | jq -er .Source) || return
        echo "$result: $(jq -r .DiskTarget <<<"$found") is $source"
        case $result in completed | pivoted) exit 0 ;; *) exit 1 ;; esac
    fi
    if [ "$(jq -r .State <<<"$found")" = ready ]; then
        if bus call $service "$job" $service.Job Pivot 'a{sv}' 1 async b true; then
            echo "ready, pivot"
        else
            # where QEMU went away, or somebody else ends the job, a signal follows
            [ "$(get "$job" Job | jq -r .State)" != ready ]
        fi
    fi
}

# Before the job is started, so that none of its signals can be missed: one word a line for each.
exec {signals}< <(exec busctl --json=short monitor \
    --match "type='signal',sender='$service',interface='$service.Job'" \
    --match "type='signal',sender='org.freedesktop.DBus',member='NameOwnerChanged',arg0='$service'" 2>&1)
monitor=$!
trap 'kill $monitor' EXIT
until read -r line <&$signals && [[ $line == Monitoring* ]]; do
    kill -0 $monitor 2>/dev/null || give_up "busctl monitor: $line"
done

# As jq reads them, whole messages; what it prints is which signal that was.
exec {names}< <(jq --unbuffered -r 'select(.type == "signal") | .member' <&$signals)
while :; do
    before=$(owner)
    # Where the service went away in the middle of a step, what it did is seen when it is back.
    step || [ -z "$before" ] || [ "$before" != "$(owner)" ] || give_up "see above"
    read -r _ <&$names || give_up "the bus is gone"
done
