//! What a reservation file says: whose the address is.
use crate::spec::{Attachment, ContainerId, IfName};

/// Content of a reservation file, surrounding white space removed, as the reference compares it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Owner(Vec<u8>);

const LINE_BREAK: &str = "\r\n";

impl Owner {
    /// What is written for an attachment: container ID, CR LF, interface name.
    pub(super) fn of(attachment: &Attachment) -> Self {
        let (id, ifname) = (&attachment.container_id, &attachment.ifname);
        Self(
            [id.as_str(), LINE_BREAK, ifname.as_str()]
                .concat()
                .into_bytes(),
        )
    }

    /// What old releases of the reference wrote, and every release still honours: the container ID alone.
    pub(super) fn legacy(id: &ContainerId) -> Self {
        Self(id.as_str().as_bytes().to_vec())
    }

    /// Reads a file. None if it is torn: it is empty, or does not begin with a container ID, as after a power
    /// loss (the reference writes into the file it reserves with) or a writer killed half-way.
    pub(super) fn read(content: &[u8]) -> Option<Self> {
        let text = str::from_utf8(content).ok()?.trim();
        let id = text.split(LINE_BREAK).next()?;
        ContainerId::parse(id).ok()?;
        Some(Self(text.as_bytes().to_vec()))
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Without interface name.
    pub(super) fn is_legacy(&self) -> bool {
        !self.0.windows(2).any(|two| two == LINE_BREAK.as_bytes())
    }

    /// Container ID and interface name, the latter missing in the old form; None where they are not what
    /// anybody's ADD could have written.
    pub(super) fn parts(&self) -> Option<(ContainerId, Option<IfName>)> {
        let text = str::from_utf8(&self.0).ok()?;
        let (id, ifname) = match text.split_once(LINE_BREAK) {
            Some((id, ifname)) => (id, Some(IfName::parse(ifname).ok()?)),
            None => (text, None),
        };
        Some((ContainerId::parse(id).ok()?, ifname))
    }

    /// For messages: `<container ID> <ifname>`.
    pub(super) fn shown(&self) -> String {
        String::from_utf8_lossy(&self.0).replace(LINE_BREAK, " ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_the_reference() {
        let attachment = Attachment {
            container_id: ContainerId::parse("cont1").unwrap(),
            ifname: IfName::parse("eth0").unwrap(),
        };
        let owner = Owner::of(&attachment);
        assert_eq!(
            owner.as_bytes(),
            [
                0x63, 0x6f, 0x6e, 0x74, 0x31, 0x0d, 0x0a, 0x65, 0x74, 0x68, 0x30
            ]
        );
        assert!(!owner.is_legacy());
        let (id, ifname) = owner.parts().unwrap();
        assert_eq!(
            (id.as_str(), ifname),
            ("cont1", Some(attachment.ifname.clone()))
        );
        assert_eq!(Owner::read(b" cont1\r\neth0\n"), Some(owner));
        let legacy = Owner::read(b"cont1\n").unwrap();
        assert_eq!(legacy, Owner::legacy(&attachment.container_id));
        assert!(legacy.is_legacy());
        assert_eq!(legacy.parts().unwrap().1, None);
    }

    #[test]
    fn torn_files_have_no_owner() {
        for torn in [
            &b""[..],
            b" \r\n",
            b"\0\0\0\0",
            b"\r\neth0x y",
            b"/etc",
            b"\xff\xfe",
            b"a b\r\neth0",
        ] {
            assert_eq!(Owner::read(torn), None, "{torn:?}");
        }
    }
}
