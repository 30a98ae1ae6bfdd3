//! JSON objects out of a stream of bytes, one at a time: the items of a list, the events of a watch. So a list of
//! 5,000 Nodes needs the room of its longest one.

/// Longest object that is read; the API server's own limit is below half of it.
pub const MAX_OBJECT_BYTES: usize = 4 << 20;
/// What is kept of what stands around the objects.
const MAX_REST_BYTES: usize = 64 << 10;

/// Finds the objects at one depth.
#[derive(Debug)]
pub struct Objects {
    /// How many brackets are open around an object.
    level: usize,
    depth: usize,
    in_string: bool,
    escaped: bool,
    /// In an array at `level`. A NodeList has one such, `items`.
    in_array: bool,
    /// In an object that is looked for.
    inside: bool,
    object: Vec<u8>,
    too_long: bool,
    rest: Vec<u8>,
}

// === impl Objects ===

impl Objects {
    /// The items of `{"metadata": {}, "items": [{}, {}]}`.
    pub fn of_list() -> Self {
        Self::at(2)
    }

    /// One after the other.
    pub fn of_watch() -> Self {
        Self::at(0)
    }

    fn at(level: usize) -> Self {
        Self {
            level,
            depth: 0,
            in_string: false,
            escaped: false,
            in_array: level == 0,
            inside: false,
            object: Vec::new(),
            too_long: false,
            rest: Vec::new(),
        }
    }

    /// What stands around the objects, without the commas between them.
    pub fn rest(&self) -> &[u8] {
        &self.rest
    }

    /// Takes the next bytes and hands out each object that is whole now; `None` is one that was too long.
    ///
    /// # Errors
    /// The first that `each` gives. The bytes behind that object are lost.
    pub fn push<E>(
        &mut self,
        bytes: &[u8],
        mut each: impl FnMut(Option<&[u8]>) -> Result<(), E>,
    ) -> Result<(), E> {
        // Where the part begins that is not put away yet.
        let (mut from, mut at) = (0, 0);
        while let Some(&byte) = bytes.get(at) {
            at += 1;
            if self.in_string {
                at = self.string(bytes, at - 1);
                continue;
            }
            match byte {
                b'"' => self.in_string = true,
                b'{' | b'[' => {
                    if self.depth == self.level && self.in_array && !self.inside && byte == b'{' {
                        self.put(bytes.get(from..at - 1));
                        (from, self.inside) = (at - 1, true);
                    } else if self.depth + 1 == self.level {
                        self.in_array = byte == b'[';
                    }
                    self.depth += 1;
                }
                b'}' | b']' => {
                    self.depth = self.depth.saturating_sub(1);
                    if self.inside && self.depth == self.level {
                        let part = bytes.get(from..at).unwrap_or_default();
                        (from, self.inside) = (at, false);
                        self.hand_out(part, &mut each)?;
                    }
                }
                b',' if self.depth == self.level && self.in_array && !self.inside => {
                    self.put(bytes.get(from..at - 1));
                    from = at;
                }
                _ => {}
            }
        }
        self.put(bytes.get(from..));
        Ok(())
    }

    /// Passes over a string's bytes from `at`; tells where it went on or ended.
    fn string(&mut self, bytes: &[u8], at: usize) -> usize {
        let mut at = at;
        if self.escaped {
            self.escaped = false;
            at += 1;
        }
        while let Some(found) = bytes
            .get(at..)
            .and_then(|rest| rest.iter().position(|b| matches!(b, b'"' | b'\\')))
        {
            at += found;
            if bytes.get(at) == Some(&b'"') {
                self.in_string = false;
                return at + 1;
            }
            if at + 1 == bytes.len() {
                self.escaped = true;
                return at + 1;
            }
            at += 2;
        }
        bytes.len()
    }

    fn hand_out<E>(
        &mut self,
        part: &[u8],
        each: &mut impl FnMut(Option<&[u8]>) -> Result<(), E>,
    ) -> Result<(), E> {
        let too_long = std::mem::take(&mut self.too_long);
        if too_long || self.object.len() + part.len() > MAX_OBJECT_BYTES {
            self.object = Vec::new();
            return each(None);
        }
        if self.object.is_empty() {
            return each(Some(part));
        }
        self.object.extend_from_slice(part);
        let outcome = each(Some(&self.object));
        self.object.clear();
        outcome
    }

    fn put(&mut self, part: Option<&[u8]>) {
        let part = part.unwrap_or_default();
        let (to, room) = if self.inside {
            (&mut self.object, MAX_OBJECT_BYTES)
        } else if self.level == 0 {
            return;
        } else {
            (&mut self.rest, MAX_REST_BYTES)
        };
        if to.len() + part.len() <= room {
            to.extend_from_slice(part);
        } else {
            self.too_long = self.inside;
        }
    }
}

#[cfg(test)]
mod tests;
