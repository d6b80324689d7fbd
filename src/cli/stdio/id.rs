//! Whose message it is that is too long to be read.

use serde_json::Value;
use toolmesh_core::limits;

/// Finds the id of a request in its bytes, of which nothing else is kept.
#[derive(Debug, Default)]
pub(super) struct IdFinder {
    depth: usize,
    in_text: bool,
    escaped: bool,
    /// The key or value that is being read in the message itself.
    word: Vec<u8>,
    /// What is being read is the value of `id`.
    is_id: bool,
    has_method: bool,
    id: Option<Vec<u8>>,
}

impl IdFinder {
    /// Reads on.
    pub(super) fn read(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.step(byte);
        }
    }

    /// Returns the id, if these are the bytes of a request that has one.
    pub(super) fn id(&self) -> Value {
        let id = self.id.as_deref().filter(|_| self.has_method);
        let id = id.and_then(|id| serde_json::from_slice::<Value>(id).ok());
        id.filter(|id| id.is_string() || id.is_number()).unwrap_or_default()
    }

    fn step(&mut self, byte: u8) {
        if self.in_text {
            self.keep(byte);
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.in_text = false,
                _ => {}
            }
            return;
        }
        match byte {
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => {
                self.end_value();
                self.depth = self.depth.saturating_sub(1);
            }
            b',' => self.end_value(),
            b':' if self.depth == 1 => {
                self.is_id = self.word == b"\"id\"";
                self.has_method |= self.word == b"\"method\"";
                self.word.clear();
            }
            b' ' | b'\t' | b'\r' => {}
            _ => {
                self.in_text = byte == b'"';
                self.keep(byte);
            }
        }
    }

    fn keep(&mut self, byte: u8) {
        if self.depth == 1 && self.word.len() < limits::STDIO_ID_BYTES {
            self.word.push(byte);
        }
    }

    fn end_value(&mut self) {
        if self.depth == 1 {
            let word = std::mem::take(&mut self.word);
            if std::mem::take(&mut self.is_id) {
                self.id.get_or_insert(word);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_id_of_a_request_is_found_wherever_it_stands() {
        let long = "\\\"id\\\": 9, {".repeat(1_000);
        for (text, wanted) in [
            (format!(r#"{{"id":7,"method":"m","params":{{"id":8,"x":"{long}"}}}}"#), json!(7)),
            (
                format!(r#"{{"method":"m","params":{{"id":8,"x":["{long}"]}},"id":"a"}}"#),
                json!("a"),
            ),
            (format!(r#"{{ "method" : "id", "params":{{"x":"{long}"}} , "id" : -1 }}"#), json!(-1)),
            (format!(r#"{{"id":7,"method":"m","params":{{"x":"{long}"#), json!(7)),
            (format!(r#"{{"id":7,"result":{{"x":"{long}"}}}}"#), Value::Null),
            (format!(r#"{{"method":"m","params":{{"id":7,"x":"{long}"}}}}"#), Value::Null),
            (format!(r#"{{"method":"m","id":[7],"x":"{long}"}}"#), Value::Null),
            (format!(r#"{{"method":"m","id":"{}"}}"#, "x".repeat(300)), Value::Null),
            ("x".repeat(1_000), Value::Null),
            ("]]]}}}{\"id\":1".to_owned(), Value::Null),
        ] {
            for size in [1, 7, text.len()] {
                let mut finder = IdFinder::default();
                text.as_bytes().chunks(size).for_each(|piece| finder.read(piece));
                assert_eq!(finder.id(), wanted, "{}", &text[..40.min(text.len())]);
            }
        }
    }
}
