//! What comes out of a netlink socket. The kernel is believed; its next version may say more than this one.

use libcni::kernel::fuzzing::read;
use libcni::nl::fuzzing::walk;

/// A datagram: messages, each of which every reader gets.
pub fn netlink(bytes: &[u8]) {
    let mut seen = 0;
    walk(bytes, |reply, verdict| {
        seen += 1;
        let found = read(reply);
        assert_eq!(found, read(reply), "the same bytes, read twice");
        if let Err(error) = verdict {
            assert!(error.errno > 0, "{error:?}");
            assert!(!error.to_string().is_empty());
        }
    });
    // A header has 16 bytes, so there are no more messages than that.
    assert!(
        seen <= bytes.len() / 16,
        "{seen} messages in {} bytes",
        bytes.len()
    );
}
