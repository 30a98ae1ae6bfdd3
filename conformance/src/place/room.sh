# What every place of one's own begins with. Runs as process 1 of fresh mount, network and pid namespaces, so that
# everything made here (mounts, links, rules, daemons, containers) ends with this process, whatever ends it.
# Environment: PLACE_PLUGINS (a directory of CNI plugins), PLACE_TAPPED (plugins whose calls are noted), PLACE_TAP (the
# script that notes them).
# What follows says "pid $pid" (this process as the machine numbers it), then "ready VERSION", and lives until its standard
# input ends.
set -euo pipefail
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

# The machine's /proc is still the one in sight, so it names us by the machine's number.
read -r pid _ </proc/self/stat
mount -t proc proc /proc

# Private stand-ins for every directory a runtime, its helpers and the plugins write to. The plugins may lie under any of
# them, so they are copied from the working directory, which no mount hides.
cd "$PLACE_PLUGINS"
mount -t tmpfs tmpfs /run
mkdir /run/etc /run/etc.work
mount -t overlay -o lowerdir=/etc,upperdir=/run/etc,workdir=/run/etc.work overlay /etc
for directory in /var/lib /opt /tmp /dev/shm; do mount -t tmpfs tmpfs "$directory"; done
mkdir -p /opt/cni/bin /opt/cni/plugins
for file in ./*; do
    if [ -f "$file" ] && [ -x "$file" ]; then cp -L "$file" /opt/cni/bin/; fi
done
cd /

# A tapped plugin is the real one, behind a script that notes when it was called, how, and for how long.
for plugin in $PLACE_TAPPED; do
    mv "/opt/cni/bin/$plugin" /opt/cni/plugins/
    printf '%s\n' "$PLACE_TAP" >"/opt/cni/bin/$plugin"
    chmod 755 "/opt/cni/bin/$plugin"
done
rm -rf /etc/cni
mkdir -p /etc/cni/net.d

ip link set lo up

# A root file system from nothing: busybox and a link per applet.
busybox_root() {
    mkdir -p "$1/bin"
    cp -L "$(command -v busybox)" "$1/bin/busybox"
    if ldd "$1/bin/busybox" 2>/dev/null | grep -q '=>'; then
        echo "busybox is not static, so it cannot be an image of its own: install busybox-static" >&2
        exit 1
    fi
    for applet in $(busybox --list); do
        [ "$applet" = busybox ] || ln -s busybox "$1/bin/$applet"
    done
}

