//! Comments, as the `nft` tool keeps them: a list of (u8 type, u8 length, value) the kernel stores unread.

use super::COMMENT_MAX_BYTES;
use crate::nl::{Message, attr};

/// `NFTNL_UDATA_{TABLE,CHAIN,RULE,SET_ELEM}_COMMENT`.
const COMMENT: u8 = 0;
/// `NFTNL_UDATA_SET_KEYBYTEORDER`
const SET_KEY_BYTE_ORDER: u8 = 0;
/// `NFTNL_UDATA_SET_COMMENT`
const SET_COMMENT: u8 = 7;

/// Adds the comment of a table, chain, rule or element; nothing for `""`.
pub(super) fn put_comment(message: Message, attr: u16, comment: &str) -> Message {
    match comment {
        "" => message,
        _ => message.bytes(attr, &tlv(COMMENT, comment)),
    }
}

/// The userdata of a set: the byte order of its keys (`enum byteorder` of `nft`), and a comment unless `""`.
pub(super) fn of_set(byte_order: u32, comment: &str) -> Vec<u8> {
    let order = byte_order.to_ne_bytes();
    [
        &[SET_KEY_BYTE_ORDER, 4],
        order.as_slice(),
        &tlv(SET_COMMENT, comment),
    ]
    .concat()
}

/// The comment in received userdata; `""` if there is none.
pub(super) fn comment(payload: Option<&[u8]>) -> String {
    let mut rest = payload.unwrap_or_default();
    while let [kind, length, tail @ ..] = rest {
        let Some((value, next)) = tail.split_at_checked(usize::from(*length)) else {
            break;
        };
        if *kind == COMMENT {
            return attr::str(value).unwrap_or_default().to_owned();
        }
        rest = next;
    }
    String::new()
}

fn tlv(kind: u8, comment: &str) -> Vec<u8> {
    if comment.is_empty() {
        return Vec::new();
    }
    let text = comment.as_bytes();
    let text = text.get(..COMMENT_MAX_BYTES).unwrap_or(text);
    // nft rejects a comment without a NUL at its end. At most 128 bytes with it: fits the length byte.
    let length = u8::try_from(text.len() + 1).unwrap_or(u8::MAX);
    [&[kind, length], text, &[0]].concat()
}
