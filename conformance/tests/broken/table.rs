//! The broken plugins.

/// One of them: a script around a plugin that is not.
pub struct Broken {
    /// For people.
    pub what: &'static str,
    /// Whom it replaces.
    pub plugin: &'static str,
    /// Shell. `real` is the plugin itself, `conf` its stdin once `read_conf` ran.
    pub script: &'static str,
    /// The assertion that must fail.
    pub caught: &'static str,
    /// In this version.
    pub version: &'static str,
}

/// What scripts share.
pub const COMMON: &str = r#"
read_conf() { conf=$(cat); }
with_conf() { printf %s "$conf" | real; }
fail() { printf '{"code": 999, "msg": "%s"}' "$1"; exit 1; }
in_pod() { nsenter --net="$CNI_NETNS" "$@"; }
verb=$CNI_COMMAND
"#;

const fn broken(
    what: &'static str,
    plugin: &'static str,
    script: &'static str,
    caught: &'static str,
) -> Broken {
    Broken {
        what,
        plugin,
        script,
        caught,
        version: "1.1.0",
    }
}

pub const BROKEN: [Broken; 35] = [
    // The protocol.
    broken(
        "wrong error code",
        "bridge",
        r#"out=$(real); rc=$?; [ $rc = 0 ] || out=$(printf %s "$out" | sed 's/"code": [0-9]*/"code": 999/')
        printf %s "$out"; exit $rc"#,
        "protocol.env.missing.add-container",
    ),
    broken(
        "an error with exit status 0",
        "bridge",
        "real; exit 0",
        "protocol.env.missing.add-ifname",
    ),
    broken(
        "an error as text",
        "loopback",
        r#"out=$(real) || { echo "oh no" >&2; exit 1; }; printf %s "$out""#,
        "protocol.error.exit.config",
    ),
    broken(
        "an error and exit status, but a result before it",
        "bridge",
        r#"read_conf; [ $verb != ADD ] || printf '{"cniVersion": "1.1.0"}'; with_conf"#,
        "protocol.json.bad.open-brace",
    ),
    broken(
        "noise on stdout",
        "bridge",
        "[ $verb != ADD ] || echo adding; real",
        "results.lifecycle",
    ),
    broken(
        "DEL prints a result",
        "host-local",
        "real; rc=$?; [ $verb != DEL ] || printf '{}'; exit $rc",
        "protocol.stdout.silent",
    ),
    broken(
        "the version is not the caller's",
        "bridge",
        r#"out=$(real); rc=$?; [ $verb != ADD ] || out=$(printf %s "$out" | sed 's/"cniVersion": "[^"]*"/"cniVersion": "0.3.1"/')
        printf %s "$out"; exit $rc"#,
        "results.lifecycle.shape",
    ),
    broken(
        "unknown versions are taken",
        "loopback",
        r#"read_conf; conf=$(printf %s "$conf" | sed 's/9\.9\.9/1.1.0/'); with_conf"#,
        "protocol.cni-version.unknown.add-future",
    ),
    broken(
        "unknown keys are refused",
        "host-local",
        r#"read_conf; case $conf in *xUnknown*) fail "unknown key";; esac; with_conf"#,
        "protocol.json.unknown-keys.scalar",
    ),
    broken(
        "crashes by a signal",
        "bridge",
        "[ $verb != CHECK ] || kill -SEGV $$; real",
        "results.lifecycle-check",
    ),
    broken(
        "slow",
        "bridge",
        "[ $verb != DEL ] || sleep 4.5; real",
        "results.in-time",
    ),
    broken(
        "somebody keeps its stdout open",
        "loopback",
        "real; rc=$?; [ $verb != ADD ] || sleep 30 & exit $rc",
        "results.lifecycle",
    ),
    // What is left.
    broken(
        "leaves a link",
        "bridge",
        "real; rc=$?; [ $verb != DEL ] || ip link add left0 type veth peer name left1; exit $rc",
        "residue.bridge.plain.residue",
    ),
    broken(
        "leaves a mount",
        "bridge",
        "real; rc=$?; [ $verb != DEL ] || { mkdir -p /run/left; mount -t tmpfs none /run/left; }; exit $rc",
        "residue.bridge.plain.residue",
    ),
    broken(
        "leaves a file",
        "loopback",
        "real; rc=$?; [ $verb != ADD ] || touch /run/left; exit $rc",
        "residue.loopback.residue",
    ),
    broken(
        "leaves a rule",
        "bridge",
        r#"real; rc=$?
        [ $verb != DEL ] || { nft add table inet mine; nft add chain inet mine own; nft add rule inet mine own ip saddr 10.1.2.2 accept; }
        exit $rc"#,
        "residue.bridge.masquerade.residue",
    ),
    broken(
        "leaves an address reservation",
        "host-local",
        r#"[ $verb != DEL ] || cp -a /var/lib/cni/networks/testnet/10.1.2.2 /run/kept; real; rc=$?
        [ $verb != DEL ] || mv /run/kept /var/lib/cni/networks/testnet/10.1.2.2; exit $rc"#,
        "residue.ipam.v4.residue",
    ),
    broken(
        "leaves a route on the node",
        "bridge",
        "real; rc=$?; [ $verb != ADD ] || ip route add 198.51.100.0/24 dev lo; exit $rc",
        "residue.bridge.plain.residue",
    ),
    broken(
        "DEL leaves the veth pair",
        "bridge",
        r#"[ $verb = DEL ] || { real; exit; }; exec /run/plugins/host-local"#,
        "residue.bridge.plain.residue",
    ),
    broken(
        "a failed ADD leaves the address",
        "bridge",
        r#"read_conf; [ $verb != ADD ] || { printf %s "$conf" | /run/plugins/host-local >/dev/null; }; with_conf"#,
        "residue.failed-add.ifname-taken.residue",
    ),
    // DEL.
    broken(
        "a second DEL fails",
        "bridge",
        r#"[ $verb != DEL ] || in_pod ip link show "$CNI_IFNAME" >/dev/null 2>&1 || fail "no such interface"; real"#,
        "idempotence.del-twice",
    ),
    broken(
        "DEL fails when the namespace is gone",
        "bridge",
        r#"[ $verb != DEL ] || [ -e "$CNI_NETNS" ] || fail "no such namespace"; real"#,
        "idempotence.netns-gone",
    ),
    broken(
        "DEL forgets the IPAM",
        "bridge",
        r#"[ $verb = DEL ] || { real; exit; }; in_pod ip link del "$CNI_IFNAME"; exit 0"#,
        "delegation.del",
    ),
    broken(
        "DEL of one container takes all",
        "host-local",
        r#"real; rc=$?; [ $verb != DEL ] || rm -f /var/lib/cni/networks/testnet/10.*; exit $rc"#,
        "idempotence.two-containers",
    ),
    // ADD.
    broken(
        "works in the node instead of the pod",
        "bridge",
        r#"[ $verb != ADD ] || { ip netns add mine 2>/dev/null; CNI_NETNS=/run/netns/mine; export CNI_NETNS; }; real"#,
        "results.addresses-stand",
    ),
    broken(
        "takes over an interface that is there",
        "bridge",
        r#"[ $verb != ADD ] || in_pod ip link del "$CNI_IFNAME" 2>/dev/null; real"#,
        "idempotence.add-ifname-taken",
    ),
    broken(
        "tells another address than it set",
        "bridge",
        r#"out=$(real); rc=$?; [ $verb != ADD ] || out=$(printf %s "$out" | sed 's,10.1.2.2/24,10.1.2.99/24,')
        printf %s "$out"; exit $rc"#,
        "results.addresses-stand",
    ),
    broken(
        "hands out the same address twice",
        "host-local",
        r#"out=$(real); rc=$?; [ $verb != ADD ] || out=$(printf %s "$out" | sed 's,10.1.2.[0-9]*/,10.1.2.2/,')
        printf %s "$out"; exit $rc"#,
        "ipam.distinct",
    ),
    broken(
        "returns before the pod is reached",
        "bridge",
        r#"read_conf; with_conf; rc=$?
        [ $verb != ADD ] || in_pod ip link set eth0 down; exit $rc"#,
        "firstpacket.node-to-pod.v4",
    ),
    broken(
        "drops prevResult",
        "loopback",
        r#"read_conf; [ $verb != ADD ] || conf='{"cniVersion": "1.1.0", "name": "testnet", "type": "loopback"}'; with_conf"#,
        "chaining.passes-through.new",
    ),
    // CHECK, GC, STATUS.
    broken(
        "CHECK always says yes",
        "bridge",
        "[ $verb != CHECK ] || exit 0; real",
        "check.bridge.broken.address-gone",
    ),
    broken(
        "STATUS always says yes",
        "host-local",
        "[ $verb != STATUS ] || exit 0; real",
        "status.exhausted",
    ),
    broken(
        "STATUS always says no",
        "bridge",
        r#"[ $verb != STATUS ] || fail "not today"; real"#,
        "status.ready",
    ),
    broken(
        "GC takes what is valid",
        "host-local",
        "real; rc=$?; [ $verb != GC ] || rm -f /var/lib/cni/networks/testnet/10.*; exit $rc",
        "gc.survivors",
    ),
    broken(
        "GC does nothing",
        "bridge",
        "[ $verb != GC ] || exit 0; real",
        "gc.reservation",
    ),
];
