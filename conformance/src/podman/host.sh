# What makes a place a podman host: settings as Debian would have them for CNI, and an image.
rm -rf /etc/containers
mkdir -p /etc/containers /run/home
cat >/etc/containers/containers.conf <<END
[network]
network_backend = "cni"
cni_plugin_dirs = ["/opt/cni/bin", "/usr/lib/cni"]
network_config_dir = "/etc/cni/net.d"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
END
cat >/etc/containers/storage.conf <<'END'
[storage]
driver = "vfs"
runroot = "/run/containers/storage"
graphroot = "/var/lib/containers/storage"
END
echo '{"default": [{"type": "insecureAcceptAnything"}]}' >/etc/containers/policy.json

busybox_root /run/image
tar -C /run/image -c . | env -i PATH="$PATH" HOME=/run/home TMPDIR=/tmp podman import --quiet - localhost/busybox:local >/dev/null
rm -r /run/image

echo "pid $pid"
echo "ready $(podman --version)"
# Not in this process's stead: conmon's orphans need a parent that takes note of their end.
cat >/dev/null
