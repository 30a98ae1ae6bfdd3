//! [`Node`] to bytes.

use std::fmt::Write as _;

use super::Node;

const INDENT: &str = "    ";

pub(super) fn indented(node: &Node) -> String {
    let mut out = String::with_capacity(512);
    write(&mut out, node, Some(0));
    out
}

pub(super) fn compact(node: &Node) -> String {
    let mut out = String::with_capacity(512);
    write(&mut out, node, None);
    out
}

/// `level` is the depth of `node`, or `None` for no white space.
fn write(out: &mut String, node: &Node, level: Option<usize>) {
    let inner = level.map(|level| level + 1);
    match node {
        Node::Null => out.push_str("null"),
        Node::Bool(true) => out.push_str("true"),
        Node::Bool(false) => out.push_str("false"),
        Node::Number(number) => {
            // Writing to a String cannot fail.
            let _ = write!(out, "{number}");
        }
        Node::String(text) => write_string(out, text),
        Node::Array(items) if items.is_empty() => out.push_str("[]"),
        Node::Array(items) => {
            for (i, item) in items.iter().enumerate() {
                out.push(if i == 0 { '[' } else { ',' });
                new_line(out, inner);
                write(out, item, inner);
            }
            new_line(out, level);
            out.push(']');
        }
        Node::Object(entries) if entries.is_empty() => out.push_str("{}"),
        Node::Object(entries) => {
            for (i, (key, value)) in entries.iter().enumerate() {
                out.push(if i == 0 { '{' } else { ',' });
                new_line(out, inner);
                write_string(out, key);
                out.push(':');
                if level.is_some() {
                    out.push(' ');
                }
                write(out, value, inner);
            }
            new_line(out, level);
            out.push('}');
        }
    }
}

fn new_line(out: &mut String, level: Option<usize>) {
    if let Some(level) = level {
        out.push('\n');
        (0..level).for_each(|_| out.push_str(INDENT));
    }
}

/// Go escapes for HTML by default: `<`, `>`, `&` and the two JavaScript line ends.
fn write_string(out: &mut String, text: &str) {
    out.push('"');
    let mut rest = text;
    // U+2028 and U+2029 begin with 0xe2, as many others do.
    let suspect = |b: u8| b < 0x20 || matches!(b, b'"' | b'\\' | b'<' | b'>' | b'&' | 0xe2);
    while let Some((plain, tail)) = rest
        .bytes()
        .position(suspect)
        .and_then(|at| rest.split_at_checked(at))
    {
        out.push_str(plain);
        let mut chars = tail.chars();
        let Some(c) = chars.next() else { break };
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\0'..='\x1f' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            _ => out.push(c),
        }
        rest = chars.as_str();
    }
    out.push_str(rest);
    out.push('"');
}
