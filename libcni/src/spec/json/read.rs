//! Bytes to [`Node`].

use std::borrow::Cow;

use super::{Node, Number};

/// Deepest nesting of arrays and objects. Go stops at 10,000; nobody's config is deeper than ten, and reading, printing
/// and dropping a value each use the stack once per level.
pub const MAX_DEPTH: usize = 512;

/// Largest document. Go has no limit; a config or result this size is a mistake, and the tree takes several times it.
pub const MAX_BYTES: usize = 16 << 20;

/// Why bytes are not one JSON document. The text is the one Go gives, with the place added.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} (line {line}, column {column})")]
pub struct JsonError {
    /// What was found, and where in the grammar.
    pub what: Cow<'static, str>,
    /// Line of the offending byte, from 1.
    pub line: usize,
    /// Its byte in that line, from 1.
    pub column: usize,
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    depth: usize,
}

type Step<T> = Result<T, Cow<'static, str>>;

pub(super) fn document(bytes: &[u8]) -> Result<Node, JsonError> {
    let mut reader = Reader {
        bytes,
        at: 0,
        depth: 0,
    };
    reader.document().map_err(|what| {
        let before = bytes.get(..reader.at).unwrap_or(bytes);
        let line_start = before
            .iter()
            .rposition(|b| *b == b'\n')
            .map_or(0, |newline| newline + 1);
        JsonError {
            what,
            line: 1 + before.iter().filter(|b| **b == b'\n').count(),
            column: 1 + before.len() - line_start,
        }
    })
}

const END: Cow<'static, str> = Cow::Borrowed("unexpected end of JSON input");

impl Reader<'_> {
    fn document(&mut self) -> Step<Node> {
        if self.bytes.len() > MAX_BYTES {
            return Err("the document is larger than 16 MiB".into());
        }
        let node = self.value()?;
        match self.token() {
            None => Ok(node),
            Some(_) => Err(self.unexpected("after top-level value")),
        }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    /// The next byte that is not white space, not consumed.
    fn token(&mut self) -> Option<u8> {
        while let Some(b' ' | b'\t' | b'\r' | b'\n') = self.peek() {
            self.at += 1;
        }
        self.peek()
    }

    #[cold]
    fn unexpected(&self, place: &str) -> Cow<'static, str> {
        match self.peek() {
            None => END,
            Some(b'\'') => format!("invalid character '\\'' {place}").into(),
            Some(b'"') => format!("invalid character '\"' {place}").into(),
            Some(b) if b < 0x20 || b == 0x7f => {
                format!("invalid character '\\x{b:02x}' {place}").into()
            }
            // Go shows the byte as the Latin-1 character, even in the middle of a UTF-8 sequence.
            Some(b) => format!("invalid character '{}' {place}", char::from(b)).into(),
        }
    }

    fn value(&mut self) -> Step<Node> {
        match self.token() {
            Some(b'"') => Ok(Node::String(self.string()?)),
            Some(b'{') => self.nested(Reader::object),
            Some(b'[') => self.nested(Reader::array),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.literal("true", Node::Bool(true)),
            Some(b'f') => self.literal("false", Node::Bool(false)),
            Some(b'n') => self.literal("null", Node::Null),
            _ => Err(self.unexpected("looking for beginning of value")),
        }
    }

    fn nested(&mut self, read: fn(&mut Self) -> Step<Node>) -> Step<Node> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err("exceeded max depth".into());
        }
        self.at += 1;
        let node = read(self)?;
        self.depth -= 1;
        Ok(node)
    }

    fn object(&mut self) -> Step<Node> {
        let mut entries = Vec::new();
        if self.token() == Some(b'}') {
            self.at += 1;
            return Ok(Node::Object(entries));
        }
        loop {
            if self.token() != Some(b'"') {
                return Err(self.unexpected("looking for beginning of object key string"));
            }
            let key = self.string()?;
            if self.token() != Some(b':') {
                return Err(self.unexpected("after object key"));
            }
            self.at += 1;
            entries.push((key, self.value()?));
            match self.token() {
                Some(b',') => self.at += 1,
                Some(b'}') => {
                    self.at += 1;
                    return Ok(Node::Object(entries));
                }
                _ => return Err(self.unexpected("after object key:value pair")),
            }
        }
    }

    fn array(&mut self) -> Step<Node> {
        let mut items = Vec::new();
        if self.token() == Some(b']') {
            self.at += 1;
            return Ok(Node::Array(items));
        }
        loop {
            items.push(self.value()?);
            match self.token() {
                Some(b',') => self.at += 1,
                Some(b']') => {
                    self.at += 1;
                    return Ok(Node::Array(items));
                }
                _ => return Err(self.unexpected("after array element")),
            }
        }
    }

    fn literal(&mut self, word: &'static str, node: Node) -> Step<Node> {
        for expected in word.bytes() {
            if self.peek() != Some(expected) {
                let place = format!("in literal {word} (expecting '{}')", char::from(expected));
                return Err(self.unexpected(&place));
            }
            self.at += 1;
        }
        Ok(node)
    }

    fn number(&mut self) -> Step<Node> {
        let start = self.at;
        let mut integer = true;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.peek() {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.digits(),
            _ => return Err(self.unexpected("in numeric literal")),
        }
        if self.peek() == Some(b'.') {
            integer = false;
            self.at += 1;
            if !self.peek().is_some_and(|b| b.is_ascii_digit()) {
                return Err(self.unexpected("after decimal point in numeric literal"));
            }
            self.digits();
        }
        if let Some(b'e' | b'E') = self.peek() {
            integer = false;
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            if !self.peek().is_some_and(|b| b.is_ascii_digit()) {
                return Err(self.unexpected("in exponent of numeric literal"));
            }
            self.digits();
        }
        let text = self
            .bytes
            .get(start..self.at)
            .and_then(|text| std::str::from_utf8(text).ok())
            .unwrap_or("0");
        Ok(Node::Number(number(text, integer)))
    }

    fn digits(&mut self) {
        while self.peek().is_some_and(|b| b.is_ascii_digit()) {
            self.at += 1;
        }
    }

    /// Reads a string from its opening quote. The common case, no escape and valid UTF-8, is one scan and one copy.
    fn string(&mut self) -> Step<String> {
        self.at += 1;
        let mut out = String::new();
        loop {
            let rest = self.bytes.get(self.at..).unwrap_or_default();
            let plain = rest
                .iter()
                .position(|b| matches!(b, b'"' | b'\\' | 0..=0x1f))
                .unwrap_or(rest.len());
            let (plain, _) = rest.split_at(plain);
            self.at += plain.len();
            push_lossy(&mut out, plain);
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(out);
                }
                Some(b'\\') => {
                    self.at += 1;
                    self.escape(&mut out)?;
                }
                _ => return Err(self.unexpected("in string literal")),
            }
        }
    }

    fn escape(&mut self, out: &mut String) -> Step<()> {
        let c = match self.peek() {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                self.at += 1;
                let c = self.unicode_escape()?;
                out.push(c);
                return Ok(());
            }
            _ => return Err(self.unexpected("in string escape code")),
        };
        self.at += 1;
        out.push(c);
        Ok(())
    }

    /// Half of a surrogate pair alone is U+FFFD; what follows it is then read for itself.
    fn unicode_escape(&mut self) -> Step<char> {
        let first = self.hex4()?;
        if (0xd800..0xdc00).contains(&first) && self.bytes.get(self.at..self.at + 2) == Some(b"\\u")
        {
            let after_first = self.at;
            self.at += 2;
            let second = self.hex4()?;
            if (0xdc00..0xe000).contains(&second) {
                let c = 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00);
                return Ok(char::from_u32(c).unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            self.at = after_first;
        }
        Ok(char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER))
    }

    fn hex4(&mut self) -> Step<u32> {
        let mut value = 0;
        for _ in 0..4 {
            let digit = self.peek().and_then(|b| char::from(b).to_digit(16));
            let Some(digit) = digit else {
                return Err(self.unexpected("in \\u hexadecimal character escape"));
            };
            value = value * 16 + digit;
            self.at += 1;
        }
        Ok(value)
    }
}

fn number(text: &str, integer: bool) -> Number {
    if integer {
        if let Ok(n) = text.parse::<i64>() {
            return Number::I64(n);
        }
        if let Ok(n) = text.parse::<u64>() {
            return Number::U64(n);
        }
    }
    Number::Other(text.into())
}

/// Appends bytes, each one that is not part of valid UTF-8 as U+FFFD (Go counts bytes, Rust's lossy conversion
/// sequences).
fn push_lossy(out: &mut String, bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        out.push_str(text);
        return;
    }
    for chunk in bytes.utf8_chunks() {
        out.push_str(chunk.valid());
        chunk
            .invalid()
            .iter()
            .for_each(|_| out.push(char::REPLACEMENT_CHARACTER));
    }
}
