# What makes a place a node.
# Environment: NODE_CONFLIST (text), NODE_CONFLIST_FILE (its file name), NODE_CONTAINERD (its configuration).
printf '%s\n' "$NODE_CONFLIST" >"/etc/cni/net.d/$NODE_CONFLIST_FILE"

# A script of its own, so that a containerd that was killed can be started again in the same way.
printf '%s\n' "$NODE_CONTAINERD" >/etc/containerd-private.toml
cat >/run/start-containerd <<'END'
containerd --config /etc/containerd-private.toml >>/run/containerd.log 2>&1 </dev/null &
echo $! >/run/containerd.pid
END
sh /run/start-containerd

# An image of one layer, as `docker save` would have written it.
image=/run/image
busybox_root "$image/rootfs"
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
