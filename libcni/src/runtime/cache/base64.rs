//! Base64 with padding (RFC 4648 section 4): how Go's JSON writes bytes.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

pub(super) fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let byte = |i: usize| u32::from(group.get(i).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for i in 0..4 {
            if i > group.len() {
                text.push('=');
                continue;
            }
            let six = (bits >> (18 - 6 * i)) & 63;
            let letter = usize::try_from(six).ok().and_then(|i| ALPHABET.get(i));
            text.extend(letter.map(|b| char::from(*b)));
        }
    }
    text
}

/// None if it is not base64. Line ends are passed over, as by Go.
pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
    let text: Vec<u8> = text
        .bytes()
        .filter(|b| !matches!(b, b'\r' | b'\n'))
        .collect();
    if !text.len().is_multiple_of(4) {
        return None;
    }
    let padding = text
        .iter()
        .rev()
        .take(2)
        .take_while(|b| **b == b'=')
        .count();
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let mut bits = 0u32;
    let letters = text.get(..text.len() - padding)?;
    for (i, letter) in letters.iter().enumerate() {
        let six = ALPHABET.iter().position(|b| b == letter)?;
        bits = bits << 6 | u32::try_from(six).ok()?;
        // The first letter of four completes no byte; each other one completes one.
        if i % 4 > 0 {
            let shift = 6 - 2 * (i % 4);
            bytes.push(u8::try_from((bits >> shift) & 0xff).ok()?);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 4648 section 10.
    #[test]
    fn the_rfcs_vectors() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(encode(bytes.as_bytes()), text);
            assert_eq!(decode(text).unwrap(), bytes.as_bytes());
        }
        for text in [
            "Z", "Zg", "Zg=", "Zg=a", "Z===", "====", "Zm9v!m9v", "Zg==Zg==",
        ] {
            assert_eq!(decode(text), None, "{text}");
        }
        assert_eq!(decode("Zm9v\r\nYmFy\n").unwrap(), b"foobar");
    }

    #[test]
    fn every_byte_survives() {
        let all: Vec<u8> = (0..=255).collect();
        for from in 0..3 {
            assert_eq!(decode(&encode(&all[from..])).unwrap(), &all[from..]);
        }
    }
}
