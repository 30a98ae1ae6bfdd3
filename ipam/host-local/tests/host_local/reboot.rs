//! A node that lost its pods without a DEL.
use std::fs;

use serde_json::json;
use testkit::{Pod, in_netns, sh};

use crate::bed::{Bed, OURS, THEIRS};

/// kubernetes/kubernetes#57280, k3s-io/k3s#4682 and many more: "no IP addresses available in range set".
#[test]
fn the_pool_of_a_crashed_node_is_free_again() {
    in_netns(|| {
        let boot_id = "/proc/sys/kernel/random/boot_id";
        fs::write("/run/boot_id", "11111111-0000-4000-8000-000000000000\n").unwrap();
        sh(&format!("mount --bind /run/boot_id {boot_id}"));
        let bed = Bed::new(json!({"subnet": "10.1.2.0/29"}));
        for id in ["a", "b", "c"] {
            bed.add(OURS, id);
        }
        for id in ["d", "e"] {
            bed.add(THEIRS, id);
        }
        bed.call(OURS, "CHECK", "a").ok(); // reads all, writes nothing
        bed.call(OURS, "ADD", "f").err(); // has read all now
        let pod = Pod::new("of-b"); // somehow still there
        pod.sh("ip link set lo up; ip addr add 10.1.2.3/29 dev lo");
        fs::write("/run/boot_id", "22222222-0000-4000-8000-000000000000\n").unwrap();
        assert_eq!(bed.add(OURS, "f"), ["10.1.2.2"]);
        let left: Vec<_> = bed.reservations().into_iter().collect();
        let left: Vec<_> = left
            .iter()
            .map(|(ip, owner)| (ip.as_str(), owner.as_str()))
            .collect();
        assert_eq!(left, [("10.1.2.2", "f\r\neth0"), ("10.1.2.3", "b\r\neth0")]);
        // The kubelet deletes the sandboxes of the earlier boot when it is up again.
        for id in ["a", "b", "c", "d", "e"] {
            bed.del(OURS, id);
        }
        bed.call(THEIRS, "CHECK", "f").ok();
        assert_eq!(bed.reservations().len(), 1);
    });
}
