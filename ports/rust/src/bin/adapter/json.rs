//! What the protocol and the vectors need of JSON: it is read, strictly, to a depth of `DEEPEST`; texts are written.

use std::collections::HashMap;
use std::iter::Peekable;
use std::str::Chars;

#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Text(String),
    Number(f64),
    Word(&'static str),
    List(Vec<Value>),
    Object(Object),
}

const DEEPEST: usize = 16;

pub type Object = HashMap<String, Value>;

/// One object with nothing but space around it.
pub fn parse(line: &str) -> Result<Object, String> {
    let mut reader = Reader { rest: line.chars().peekable(), depth: 0 };
    let object = reader.object()?;
    match reader.after_space() {
        None => Ok(object),
        Some(c) => Err(format!("{c:?} after the end of the object")),
    }
}

/// `text` as a JSON string, with its quotes.
pub fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c < ' ' => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

struct Reader<'a> {
    rest: Peekable<Chars<'a>>,
    depth: usize,
}

impl Reader<'_> {
    fn object(&mut self) -> Result<Object, String> {
        let mut object = Object::new();
        self.expect('{')?;
        if self.after_space() == Some('}') {
            self.rest.next();
            return Ok(object);
        }
        loop {
            let name = self.text()?;
            self.expect(':')?;
            let value = self.value()?;
            if object.insert(name.clone(), value).is_some() {
                return Err(format!("{name:?} twice"));
            }
            match self.after_space() {
                Some(',') => self.rest.next(),
                _ => return self.expect('}').map(|()| object),
            };
        }
    }

    fn value(&mut self) -> Result<Value, String> {
        match self.after_space() {
            Some('"') => self.text().map(Value::Text),
            Some('-' | '0'..='9') => self.number(),
            Some('t') => self.word("true"),
            Some('f') => self.word("false"),
            Some('n') => self.word("null"),
            Some('[' | '{') if self.depth == DEEPEST => Err("too deep".to_owned()),
            Some('[') => self.deeper(Self::list).map(Value::List),
            Some('{') => self.deeper(Self::object).map(Value::Object),
            other => Err(format!("{other:?} where a value must be")),
        }
    }

    fn deeper<T>(&mut self, read: fn(&mut Self) -> Result<T, String>) -> Result<T, String> {
        self.depth += 1;
        let read = read(self);
        self.depth -= 1;
        read
    }

    fn list(&mut self) -> Result<Vec<Value>, String> {
        let mut list = Vec::new();
        self.expect('[')?;
        if self.after_space() == Some(']') {
            self.rest.next();
            return Ok(list);
        }
        loop {
            list.push(self.value()?);
            match self.after_space() {
                Some(',') => self.rest.next(),
                _ => return self.expect(']').map(|()| list),
            };
        }
    }

    fn word(&mut self, word: &'static str) -> Result<Value, String> {
        match word.chars().all(|c| self.rest.next() == Some(c)) {
            true => Ok(Value::Word(word)),
            false => Err(format!("not {word}")),
        }
    }

    fn number(&mut self) -> Result<Value, String> {
        let mut digits = String::new();
        while let Some(c) = self.rest.peek().copied().filter(|c| "+-.eE0123456789".contains(*c)) {
            digits.push(c);
            self.rest.next();
        }
        // Rust reads a few forms that JSON does not have: a leading zero, a point without a digit beside it.
        let whole = digits.trim_start_matches('-').split(['.', 'e', 'E']).next().unwrap_or("");
        let good = (whole == "0" || !whole.starts_with('0')) && !whole.is_empty() && !dangling_point(&digits);
        match digits.parse::<f64>() {
            Ok(number) if good && number.is_finite() => Ok(Value::Number(number)),
            _ => Err(format!("{digits} is no number")),
        }
    }

    fn text(&mut self) -> Result<String, String> {
        self.expect('"')?;
        let mut text = String::new();
        loop {
            match self.rest.next().ok_or("a text without an end")? {
                '"' => return Ok(text),
                '\\' => text.push(self.escape()?),
                c if c < ' ' => return Err(format!("{c:?} in a text")),
                c => text.push(c),
            }
        }
    }

    fn escape(&mut self) -> Result<char, String> {
        Ok(match self.rest.next() {
            Some(c @ ('"' | '\\' | '/')) => c,
            Some('b') => '\u{8}',
            Some('f') => '\u{c}',
            Some('n') => '\n',
            Some('r') => '\r',
            Some('t') => '\t',
            Some('u') => return self.code_point(),
            other => return Err(format!("{other:?} after a backslash")),
        })
    }

    /// What follows `\u`: one unit of UTF-16, or two of them in two escapes.
    fn code_point(&mut self) -> Result<char, String> {
        let mut units = vec![self.unit()?];
        if (0xd800..0xdc00).contains(&units[0]) && self.rest.next() == Some('\\') && self.rest.next() == Some('u') {
            units.push(self.unit()?);
        }
        String::from_utf16(&units)
            .ok()
            .and_then(|text| text.chars().next())
            .ok_or_else(|| "half a character".to_owned())
    }

    fn unit(&mut self) -> Result<u16, String> {
        let digits: String = self.rest.by_ref().take(4).collect();
        let all_hex = digits.len() == 4 && digits.chars().all(|c| c.is_ascii_hexdigit());
        u16::from_str_radix(&digits, 16).ok().filter(|_| all_hex).ok_or(format!("{digits:?} are not four digits"))
    }

    fn expect(&mut self, wanted: char) -> Result<(), String> {
        match self.after_space() {
            Some(c) if c == wanted => {
                self.rest.next();
                Ok(())
            }
            other => Err(format!("{other:?} where {wanted:?} must be")),
        }
    }

    fn after_space(&mut self) -> Option<char> {
        while matches!(self.rest.peek(), Some(' ' | '\t' | '\r' | '\n')) {
            self.rest.next();
        }
        self.rest.peek().copied()
    }
}

fn dangling_point(digits: &str) -> bool {
    match digits.split_once('.') {
        None => false,
        Some((_, after)) => !after.starts_with(|c: char| c.is_ascii_digit()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_protocol_has() {
        let object =
            parse(r#" {"op": "lock", "id": 3, "key" : "a\"\\\u00e9\ud83d\ude00\n/", "timeout": 0.0} "#).unwrap();
        assert_eq!(object["op"], Value::Text("lock".into()));
        assert_eq!(object["id"], Value::Number(3.0));
        assert_eq!(object["key"], Value::Text("a\"\\é😀\n/".into()));
        assert_eq!(object["timeout"], Value::Number(0.0));
        assert_eq!(parse("{}").unwrap(), Object::new());
        let within = parse(r#"{"a": [], "b": [1, {"c": "d"}]}"#).unwrap();
        let object = Value::Object(Object::from([("c".into(), Value::Text("d".into()))]));
        assert_eq!(
            (&within["a"], &within["b"]),
            (&Value::List(vec![]), &Value::List(vec![Value::Number(1.0), object]))
        );
        assert_eq!(parse(r#"{"x": -1.5e2, "y": null}"#).unwrap()["x"], Value::Number(-150.0));
    }

    #[test]
    fn refuses_what_is_none() {
        let lines = r#"
            {
            []
            {}{}
            {} x
            {"a"}
            {"a":}
            {"a":1,}
            {"a":1 "b":2}
            {a:1}
            {"a":1,"a":2}
            {"a":01}
            {"a":1.}
            {"a":1.e5}
            {"a":.5}
            {"a":+1}
            {"a":--1}
            {"a":1e999}
            {"a":[1,]}
            {"a":[1 2]}
            {"a":{"b"}}
            {"a":nul}
            {"a":"x}
            {"a":"\x"}
            {"a":"\u12"}
            {"a":"\u+123"}
            {"a":"\ud800"}
            {"a":"\ud800\u0041"}
            {"a":"\udc00"}"#;
        assert!(parse("{\"a\":\"\t\"}").is_err());
        let deep = |depth| parse(&format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth)));
        assert!(deep(DEEPEST).is_ok());
        assert!(deep(DEEPEST + 1).is_err() && deep(30_000).is_err());
        for line in lines.lines() {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn writes_what_it_reads() {
        for text in ["", "a", "\"\\/", "\0\n\u{1f}\u{7f}", "é😀\u{2028}"] {
            let line = format!("{{{}: {}}}", quoted(text), quoted(text));
            assert_eq!(parse(&line).unwrap()[text], Value::Text(text.into()));
        }
    }
}
