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
    let mut plain_from = 0;
    for (at, c) in text.char_indices() {
        let short = match c {
            '"' => "\\\"",
            '\\' => "\\\\",
            '\n' => "\\n",
            '\r' => "\\r",
            '\t' => "\\t",
            '\u{8}' => "\\b",
            '\u{c}' => "\\f",
            '\0'..='\x1f' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => "",
            _ => continue,
        };
        out.push_str(text.get(plain_from..at).unwrap_or_default());
        out.push_str(short);
        if short.is_empty() {
            let _ = write!(out, "\\u{:04x}", u32::from(c));
        }
        plain_from = at + c.len_utf8();
    }
    out.push_str(text.get(plain_from..).unwrap_or_default());
    out.push('"');
}
