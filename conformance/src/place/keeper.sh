# Holds a place of one's own: starts it in its namespaces and clears away the one thing that outlives them, its cgroups.
# Ctrl-C at the terminal is not for this process: it ends when its standard input does, and with it the place.
# Environment: PLACE_NAME, PLACE_SCRIPT.
trap '' INT TERM HUP
unshare --mount --net --ipc --uts --pid --fork --kill-child --propagation private bash -c "$PLACE_SCRIPT" place
status=$?
# The pods' parent cgroup, in the one hierarchy (v2) or in each (v1). A cgroup is busy for a moment after its last process.
for _ in 1 2 3 4 5 6 7 8 9 10; do
    left=no
    for group in /sys/fs/cgroup/"$PLACE_NAME" /sys/fs/cgroup/*/"$PLACE_NAME"; do
        [ -d "$group" ] || continue
        find "$group" -depth -type d -exec rmdir {} + 2>/dev/null
        [ -d "$group" ] && left=yes
    done
    [ "$left" = yes ] || break
    sleep 0.1
done
exit "$status"
