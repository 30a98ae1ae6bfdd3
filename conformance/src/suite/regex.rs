//! The regular expressions of cases: `. [a-z] [^x] \d \w \s ( | ) * + ? {m,n} ^ $`.
//!
//! Matched in time that grows with pattern times text, as texts are written by plugins under test: no pattern of a case
//! makes one of them hang us.

use anyhow::{Context, Result, bail, ensure};

/// Instructions of a compiled pattern: `x{1000}{1000}` is a mistake.
const LARGEST: usize = 4096;
const DEEPEST: usize = 32;

/// A pattern ready to be looked for.
#[derive(Debug, Clone)]
pub struct Regex(Vec<Op>);

#[derive(Debug, Clone)]
enum Op {
    One(Set),
    Start,
    End,
    Split(usize, usize),
    Jump(usize),
    Found,
}

#[derive(Debug, Clone)]
struct Set {
    not: bool,
    ranges: Vec<(char, char)>,
}

enum Node {
    Empty,
    One(Set),
    Start,
    End,
    Row(Vec<Node>),
    Either(Vec<Node>),
    Times(Box<Node>, usize, Option<usize>),
}

// === impl Regex ===

impl Regex {
    /// Reads a pattern.
    ///
    /// # Errors
    /// It is none.
    pub fn new(pattern: &str) -> Result<Regex> {
        let mut reader = Reader {
            rest: pattern.chars().collect::<Vec<_>>().into_iter().peekable(),
            depth: 0,
        };
        let read = |reader: &mut Reader| {
            let node = reader.either()?;
            ensure!(reader.rest.next().is_none(), "a ) without its (");
            let mut ops = Vec::new();
            emit(&node, &mut ops)?;
            ops.push(Op::Found);
            Ok(Regex(ops))
        };
        read(&mut reader).with_context(|| format!("the pattern /{pattern}/"))
    }

    /// Whether some part of the text is as the pattern says.
    #[must_use]
    pub fn is_in(&self, text: &str) -> bool {
        let mut now = Threads::of(self.0.len());
        let mut chars = text.chars();
        let mut first = true;
        loop {
            let next = chars.next();
            if self.follow(0, &mut now, first, next.is_none()) {
                return true;
            }
            let Some(c) = next else { return false };
            first = false;
            let mut then = Threads::of(self.0.len());
            let is_last = chars.as_str().is_empty();
            for at in now.list {
                if let Some(Op::One(set)) = self.0.get(at)
                    && set.has(c)
                    && self.follow(at + 1, &mut then, false, is_last)
                {
                    return true;
                }
            }
            now = then;
        }
    }

    /// Adds a thread and all it leads to without a character. Whether one of them is through.
    fn follow(&self, at: usize, threads: &mut Threads, first: bool, last: bool) -> bool {
        let mut todo = vec![at];
        while let Some(at) = todo.pop() {
            if !threads.add(at) {
                continue;
            }
            match self.0.get(at) {
                Some(Op::Found) => return true,
                Some(Op::Jump(to)) => todo.push(*to),
                Some(Op::Split(a, b)) => todo.extend([*b, *a]),
                Some(Op::Start) if first => todo.push(at + 1),
                Some(Op::End) if last => todo.push(at + 1),
                _ => {}
            }
        }
        false
    }
}

struct Threads {
    list: Vec<usize>,
    there: Vec<bool>,
}

impl Threads {
    fn of(size: usize) -> Threads {
        Threads {
            list: Vec::new(),
            there: vec![false; size],
        }
    }

    fn add(&mut self, at: usize) -> bool {
        match self.there.get_mut(at) {
            Some(there) if !*there => {
                *there = true;
                self.list.push(at);
                true
            }
            _ => false,
        }
    }
}

impl Set {
    fn of(ranges: &[(char, char)]) -> Set {
        Set {
            not: false,
            ranges: ranges.to_vec(),
        }
    }

    fn has(&self, c: char) -> bool {
        self.not
            != self
                .ranges
                .iter()
                .any(|(from, to)| (*from..=*to).contains(&c))
    }
}

fn emit(node: &Node, ops: &mut Vec<Op>) -> Result<()> {
    ensure!(ops.len() < LARGEST, "it is too large");
    match node {
        Node::Empty => {}
        Node::One(set) => ops.push(Op::One(set.clone())),
        Node::Start => ops.push(Op::Start),
        Node::End => ops.push(Op::End),
        Node::Row(nodes) => {
            for node in nodes {
                emit(node, ops)?;
            }
        }
        Node::Either(nodes) => {
            let mut ends = Vec::new();
            for (i, node) in nodes.iter().enumerate() {
                let split = ops.len();
                let is_last = i + 1 == nodes.len();
                if !is_last {
                    ops.push(Op::Jump(0));
                }
                emit(node, ops)?;
                if !is_last {
                    ends.push(ops.len());
                    ops.push(Op::Jump(0));
                    let next = ops.len();
                    put(ops, split, Op::Split(split + 1, next));
                }
            }
            let end = ops.len();
            for jump in ends {
                put(ops, jump, Op::Jump(end));
            }
        }
        Node::Times(node, least, most) => {
            for _ in 0..*least {
                emit(node, ops)?;
            }
            let again = |ops: &mut Vec<Op>, back: bool| {
                let split = ops.len();
                ops.push(Op::Jump(0));
                emit(node, ops)?;
                if back {
                    ops.push(Op::Jump(split));
                }
                let end = ops.len();
                put(ops, split, Op::Split(split + 1, end));
                Ok::<(), anyhow::Error>(())
            };
            match most {
                None => again(ops, true)?,
                Some(most) => {
                    for _ in *least..*most {
                        again(ops, false)?;
                    }
                }
            }
        }
    }
    Ok(())
}

fn put(ops: &mut [Op], at: usize, op: Op) {
    if let Some(slot) = ops.get_mut(at) {
        *slot = op;
    }
}

// === reading ===

struct Reader {
    rest: std::iter::Peekable<std::vec::IntoIter<char>>,
    depth: usize,
}

impl Reader {
    fn either(&mut self) -> Result<Node> {
        self.depth += 1;
        ensure!(self.depth < DEEPEST, "it is too deep");
        let mut all = vec![self.row()?];
        while self.rest.next_if_eq(&'|').is_some() {
            all.push(self.row()?);
        }
        self.depth -= 1;
        Ok(Node::Either(all))
    }

    fn row(&mut self) -> Result<Node> {
        let mut row = Vec::new();
        while let Some(c) = self.rest.next_if(|c| !['|', ')'].contains(c)) {
            let node = match c {
                '(' => {
                    let inner = self.either()?;
                    ensure!(self.rest.next() == Some(')'), "a ( without its )");
                    inner
                }
                '[' => Node::One(self.set()?),
                '.' => Node::One(Set {
                    not: true,
                    ranges: Vec::new(),
                }),
                '^' => Node::Start,
                '$' => Node::End,
                '*' | '+' | '?' | '{' => {
                    bail!("a {c} with nothing to repeat (\\{c} is the character)")
                }
                '\\' => Node::One(self.escaped()?),
                c => Node::One(Set::of(&[(c, c)])),
            };
            row.push(self.times(node)?);
        }
        Ok(match row.is_empty() {
            true => Node::Empty,
            false => Node::Row(row),
        })
    }

    fn times(&mut self, mut node: Node) -> Result<Node> {
        while let Some(c) = self.rest.next_if(|c| ['*', '+', '?', '{'].contains(c)) {
            let (least, most) = match c {
                '*' => (0, None),
                '+' => (1, None),
                '?' => (0, Some(1)),
                _ => self.bounds()?,
            };
            node = Node::Times(Box::new(node), least, most);
        }
        Ok(node)
    }

    fn bounds(&mut self) -> Result<(usize, Option<usize>)> {
        let mut inside = String::new();
        loop {
            match self.rest.next() {
                Some('}') => break,
                Some(c) => inside.push(c),
                None => bail!("a {{ without its }}"),
            }
        }
        let number = |text: &str| {
            let n = text.parse::<usize>().ok().filter(|n| *n <= 1000);
            n.with_context(|| format!("{{{inside}}} has no number up to 1000"))
        };
        match inside.split_once(',') {
            None => Ok((number(&inside)?, Some(number(&inside)?))),
            Some((least, "")) => Ok((number(least)?, None)),
            Some((least, most)) => Ok((number(least)?, Some(number(most)?))),
        }
    }

    fn escaped(&mut self) -> Result<Set> {
        Ok(match self.rest.next().context("a \\ at its end")? {
            'd' => Set::of(&[('0', '9')]),
            'w' => Set::of(&[('a', 'z'), ('A', 'Z'), ('0', '9'), ('_', '_')]),
            's' => Set::of(&[(' ', ' '), ('\t', '\r')]),
            'n' => Set::of(&[('\n', '\n')]),
            't' => Set::of(&[('\t', '\t')]),
            c if c.is_alphanumeric() => bail!("\\{c} is not known"),
            c => Set::of(&[(c, c)]),
        })
    }

    fn set(&mut self) -> Result<Set> {
        let not = self.rest.next_if_eq(&'^').is_some();
        let mut ranges = Vec::new();
        loop {
            let from = match self.rest.next().context("a [ without its ]")? {
                ']' if !ranges.is_empty() => break,
                '\\' => {
                    let set = self.escaped()?.ranges;
                    match set.as_slice() {
                        [(from, to)] if from == to => *from,
                        _ => {
                            ranges.extend(set);
                            continue;
                        }
                    }
                }
                c => c,
            };
            let mut to = from;
            if self.rest.next_if_eq(&'-').is_some() {
                match self.rest.next_if(|c| *c != ']') {
                    Some(end) => to = end,
                    None => ranges.push(('-', '-')),
                }
            }
            ensure!(from <= to, "[{from}-{to}] is the wrong way round");
            ranges.push((from, to));
        }
        Ok(Set { not, ranges })
    }
}

#[cfg(test)]
mod tests {
    use super::Regex;

    #[test]
    fn patterns() {
        for (pattern, text, want) in [
            ("", "", true),
            ("b", "abc", true),
            ("^b", "abc", false),
            ("c$", "abc", true),
            ("^$", "", true),
            ("^a.c$", "abc", true),
            ("^(ab|cd)+$", "abcdab", true),
            ("^(ab|cd)+$", "abc", false),
            (r"^10\.1\.0\.\d+/24$", "10.1.0.12/24", true),
            (r"^10\.1\.0\.\d+/24$", "10.1.0/24", false),
            ("^([0-9a-f]{2}:){5}[0-9a-f]{2}$", "02:00:5e:00:53:af", true),
            ("^([0-9a-f]{2}:){5}[0-9a-f]{2}$", "02:00:5e:00:53", false),
            ("^[^0-9]{1,3}$", "abcd", false),
            ("^x{2,}$", "xxxx", true),
            ("^x?y*$", "yy", true),
            (r"[\d-]+z", "1-2z", true),
            ("a||b", "", true),
            ("(a*)*b", &"a".repeat(5000), false),
        ] {
            let regex = Regex::new(pattern).unwrap();
            assert_eq!(regex.is_in(text), want, "{pattern} {text}");
        }
    }

    #[test]
    fn mistakes() {
        for pattern in [
            "(",
            ")",
            "[a",
            "*",
            "a{",
            "a{x}",
            r"\",
            r"\q",
            "[z-a]",
            "((x{1000}){1000}){9}",
        ] {
            assert!(Regex::new(pattern).is_err(), "{pattern}");
        }
        assert!(Regex::new(&"(".repeat(100_000)).is_err());
    }
}
