# What a node is made of. Runs as process 1 of fresh mount, network and pid namespaces, so that everything made here
# (mounts, links, rules, containerd, shims, pods) ends with this process, whatever ends it.
# Environment: NODE_PLUGINS (a directory of CNI plugins), NODE_CONFLIST (text), NODE_CONFLIST_FILE (its file name),
# NODE_TAPPED (plugins whose calls are noted), NODE_TAP (the script that notes them), NODE_CONTAINERD (its configuration).
# Says "pid N" (this process as the machine numbers it), then "ready VERSION"; lives until its standard input ends.
set -euo pipefail
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

# The machine's /proc is still the one in sight, so it names us by the machine's number.
read -r pid _ </proc/self/stat
mount -t proc proc /proc

# Private stand-ins for every directory containerd, its shims and the plugins write to. The plugins may lie under any of
# them, so they are copied from the working directory, which no mount hides.
cd "$NODE_PLUGINS"
mount -t tmpfs tmpfs /run
mkdir /run/etc /run/etc.work
mount -t overlay -o lowerdir=/etc,upperdir=/run/etc,workdir=/run/etc.work overlay /etc
for directory in /var/lib /opt /tmp; do mount -t tmpfs tmpfs "$directory"; done
mkdir -p /opt/cni/bin /opt/cni/plugins
for file in ./*; do
    if [ -f "$file" ] && [ -x "$file" ]; then cp -L "$file" /opt/cni/bin/; fi
done
cd /

# A tapped plugin is the real one, behind a script that notes when it was called, how, and for how long.
for plugin in $NODE_TAPPED; do
    mv "/opt/cni/bin/$plugin" /opt/cni/plugins/
    printf '%s\n' "$NODE_TAP" >"/opt/cni/bin/$plugin"
    chmod 755 "/opt/cni/bin/$plugin"
done
rm -rf /etc/cni
mkdir -p /etc/cni/net.d
printf '%s\n' "$NODE_CONFLIST" >"/etc/cni/net.d/$NODE_CONFLIST_FILE"

ip link set lo up

# A script of its own, so that a containerd that was killed can be started again in the same way.
printf '%s\n' "$NODE_CONTAINERD" >/etc/containerd-private.toml
cat >/run/start-containerd <<'END'
containerd --config /etc/containerd-private.toml >>/run/containerd.log 2>&1 </dev/null &
echo $! >/run/containerd.pid
END
sh /run/start-containerd

# An image from nothing: one layer with busybox and a link per applet, as `docker save` would have written it.
image=/run/image
mkdir -p "$image/rootfs/bin"
cp -L "$(command -v busybox)" "$image/rootfs/bin/busybox"
if ldd "$image/rootfs/bin/busybox" 2>/dev/null | grep -q '=>'; then
    echo "busybox is not static, so it cannot be an image of its own: install busybox-static" >&2
    exit 1
fi
for applet in $(busybox --list); do
    [ "$applet" = busybox ] || ln -s busybox "$image/rootfs/bin/$applet"
done
tar -C "$image/rootfs" -cf "$image/layer.tar" .
layer=$(sha256sum "$image/layer.tar")
case $(uname -m) in
    x86_64) arch=amd64 ;;
    aarch64) arch=arm64 ;;
    *) arch=$(uname -m) ;;
esac
printf '{"architecture":"%s","os":"linux","config":{"Env":["PATH=/bin"],"Cmd":["sleep","1000000"]},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}\n' \
    "$arch" "${layer%% *}" >"$image/config.json"
printf '[{"Config":"config.json","RepoTags":["localhost/busybox:local"],"Layers":["layer.tar"]}]\n' >"$image/manifest.json"
tar -C "$image" -cf "$image/image.tar" manifest.json config.json layer.tar

for _ in $(seq 200); do
    if ctr version >/dev/null 2>&1; then up=yes; break; fi
    sleep 0.05
done
if [ -z "${up:-}" ]; then
    tail -n 20 /run/containerd.log >&2
    echo "containerd did not answer within 10 s" >&2
    exit 1
fi
ctr --namespace k8s.io image import "$image/image.tar" >/dev/null
rm -r "$image"

echo "pid $pid"
echo "ready $(containerd --version)"
exec cat >/dev/null
