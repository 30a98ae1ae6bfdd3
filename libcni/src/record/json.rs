//! JSON, written as it comes. The spans of an ADD take 34 us by way of a tree, 12 us by `std::fmt`, and 9 us so.

use std::time::Duration;

/// As many as the largest number has.
const MAX_DIGITS: usize = 20;
const ASCII: &[u8; 16] = b"0123456789abcdef";

/// A document under way. Keys and values are told in order, commas come by themselves.
#[derive(Debug)]
pub(super) struct Json(String);

impl Json {
    /// Begins an object behind what is in `text`.
    pub(super) fn after(mut text: String) -> Self {
        text.push('{');
        Self(text)
    }

    /// The text before it and the document.
    pub(super) fn finish(mut self) -> String {
        self.0.push('}');
        self.0
    }

    /// `"key":"value"`, escaped.
    pub(super) fn text(&mut self, key: &str, value: &str) {
        self.key(key);
        self.0.push('"');
        escape(&mut self.0, value);
        self.0.push('"');
    }

    /// The same unless the value is empty.
    pub(super) fn filled(&mut self, key: &str, value: &str) {
        if !value.is_empty() {
            self.text(key, value);
        }
    }

    /// `"key":5`
    pub(super) fn number(&mut self, key: &str, value: u64) {
        self.key(key);
        decimal(&mut self.0, value, 1);
    }

    /// `"key":"000000000000001f"`
    pub(super) fn id(&mut self, key: &str, value: u64) {
        self.key(key);
        self.0.push('"');
        hex(&mut self.0, value, 16);
        self.0.push('"');
    }

    /// `"key":"1795162500000042000"`: nanoseconds, as text since they exceed what a double holds.
    pub(super) fn nanoseconds(&mut self, key: &str, value: Duration) {
        self.key(key);
        self.0.push('"');
        decimal(&mut self.0, value.as_secs(), 1);
        decimal(&mut self.0, value.subsec_nanos().into(), 9);
        self.0.push('"');
    }

    /// What was written so far, without its beginning, for [`Json::again`].
    pub(super) fn members(mut self) -> String {
        self.0.remove(0);
        self.0
    }

    /// Goes on with members that were written before.
    pub(super) fn again(&mut self, members: &str) {
        self.separate();
        self.0.push_str(members);
    }

    /// Begins the value of `key`: `{` or `[`, or both at once; to be ended by [`Json::end`].
    pub(super) fn begin(&mut self, key: &str, bracket: &str) {
        self.key(key);
        self.0.push_str(bracket);
    }

    /// Begins the next object of an array.
    pub(super) fn next(&mut self) {
        self.separate();
        self.0.push('{');
    }

    /// Ends what was begun.
    pub(super) fn end(&mut self, bracket: &str) {
        self.0.push_str(bracket);
    }

    fn key(&mut self, key: &str) {
        self.separate();
        self.0.push('"');
        self.0.push_str(key);
        self.0.push_str("\":");
    }

    fn separate(&mut self) {
        if !self.0.ends_with(['{', '[']) {
            self.0.push(',');
        }
    }
}

/// What a terminal would obey is escaped as well.
fn escape(out: &mut String, text: &str) {
    let is_plain = |b| matches!(b, b' '..=b'~') && b != b'"' && b != b'\\';
    if text.bytes().all(is_plain) {
        return out.push_str(text);
    }
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            // All of them are of the basic plane.
            c if c.is_control() => {
                out.push_str("\\u");
                hex(out, u32::from(c).into(), 4);
            }
            c => out.push(c),
        }
    }
}

/// A number in decimal, filled up with zeros to at least `width` digits.
pub(super) fn decimal(out: &mut String, number: u64, width: usize) {
    let (mut rest, mut at) = (number, MAX_DIGITS);
    let mut digits = [b'0'; MAX_DIGITS];
    for digit in digits.iter_mut().rev() {
        if rest == 0 && MAX_DIGITS - at >= width {
            break;
        }
        // Divisions of 32 bits take a third of the time, and nearly all numbers are that small.
        let last;
        (rest, last) = match u32::try_from(rest) {
            Ok(small) => (u64::from(small / 10), small % 10),
            Err(_) => (rest / 10, u32::try_from(rest % 10).unwrap_or_default()),
        };
        *digit = ASCII.get(last as usize).copied().unwrap_or_default();
        at -= 1;
    }
    push_ascii(out, digits.get(at..));
}

/// A number in lower-case hex, of exactly `width` digits.
fn hex(out: &mut String, number: u64, width: usize) {
    let mut digits = [b'0'; 16];
    let mut rest = number;
    for digit in digits.iter_mut().rev() {
        *digit = ASCII.get((rest & 15) as usize).copied().unwrap_or_default();
        rest >>= 4;
    }
    push_ascii(out, digits.get(16_usize.saturating_sub(width)..));
}

fn push_ascii(out: &mut String, digits: Option<&[u8]>) {
    let digits = std::str::from_utf8(digits.unwrap_or_default());
    out.push_str(digits.unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_and_escapes() {
        let mut json = Json::after("before\n".to_owned());
        json.text("a", "\"\\\n\t\u{1b}\u{9b}ä😀");
        json.filled("empty", "");
        json.begin("b", "[{");
        json.number("c", u64::MAX);
        json.id("d", 31);
        json.end("}");
        json.next();
        json.end("}]");
        json.begin("e", "{");
        json.end("}");
        assert_eq!(
            json.finish(),
            "before\n{\"a\":\"\\\"\\\\\\n\\u0009\\u001b\\u009bä😀\",\"b\":[{\"c\":18446744073709551615,\"d\":\"000000000000001f\"},{}],\"e\":{}}"
        );
        let mut json = Json::after(String::new());
        json.nanoseconds("t", Duration::new(1_795_162_500, 42));
        json.again("\"more\":[]");
        assert_eq!(json.finish(), r#"{"t":"1795162500000000042","more":[]}"#);
    }

    #[test]
    fn digits_are_those_of_fmt() {
        for n in [
            0,
            1,
            9,
            10,
            99,
            100,
            1 << 32,
            (1 << 32) - 1,
            1 << 40,
            u64::MAX,
        ] {
            for width in [1, 4, 9, 16] {
                let mut text = String::new();
                decimal(&mut text, n, width);
                assert_eq!(text, format!("{n:0width$}"));
            }
            let mut text = String::new();
            hex(&mut text, n, 16);
            assert_eq!(text, format!("{n:016x}"));
        }
    }
}
