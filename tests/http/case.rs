//! Cases of raw bytes, as the files of the battery hold them.
//!
//! A file is a list of cases. A case begins with `=== ` and its name, then come its bytes, then lines that begin with
//! `--- ` and say what must follow. Line breaks of the file are not part of the bytes; in them `\r`, `\n`, `\t`, `\0`,
//! `\\` and `\xHH` mean one byte each, and `\*9{ab}` means `ab` nine times. Lines that begin with `# ` are remarks.

/// A case of a file.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    /// What it is about.
    pub(crate) name: String,
    /// What is sent.
    pub(crate) bytes: Vec<u8>,
    /// What must follow: a verb and the rest of its line, as written.
    pub(crate) verdicts: Vec<(String, String)>,
}

/// All cases of a text.
pub(crate) fn parse(text: &str) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with("# ") && *line != "#") {
        if let Some(name) = line.strip_prefix("=== ") {
            cases.push(Case { name: name.to_owned(), bytes: Vec::new(), verdicts: Vec::new() });
            continue;
        }
        let Some(case) = cases.last_mut() else {
            assert!(line.is_empty(), "bytes before the first case: {line}");
            continue;
        };
        if let Some(verdict) = line.strip_prefix("--- ") {
            let (verb, rest) = verdict.trim().split_once(' ').unwrap_or((verdict.trim(), ""));
            case.verdicts.push((verb.to_owned(), rest.trim().to_owned()));
        } else if case.verdicts.is_empty() {
            case.bytes.extend(unescape(line));
        } else {
            assert!(line.is_empty(), "case `{}`: bytes after its verdict: {line}", case.name);
        }
    }
    for case in &cases {
        assert!(!case.verdicts.is_empty(), "case `{}` has no verdict", case.name);
    }
    cases
}

/// The bytes that a line with escapes stands for.
pub(crate) fn unescape(line: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = line;
    while let Some((plain, escape)) = rest.split_once('\\') {
        bytes.extend_from_slice(plain.as_bytes());
        let kind = escape.chars().next().expect("an escape has a letter");
        rest = &escape[1..];
        match kind {
            'r' => bytes.push(b'\r'),
            'n' => bytes.push(b'\n'),
            't' => bytes.push(b'\t'),
            '0' => bytes.push(0),
            '\\' => bytes.push(b'\\'),
            'x' => {
                bytes.push(u8::from_str_radix(&rest[..2], 16).expect("two hexadecimal digits"));
                rest = &rest[2..];
            }
            '*' => {
                let (count, tail) = rest.split_once('{').expect("a repeat has a brace");
                let (what, tail) = tail.split_once('}').expect("a repeat ends");
                bytes.extend(unescape(what).repeat(count.parse().expect("a repeat has a count")));
                rest = tail;
            }
            other => panic!("no such escape: \\{other}"),
        }
    }
    bytes.extend_from_slice(rest.as_bytes());
    bytes
}

/// Bytes as a reader of a failure wants them.
pub(crate) fn escape(bytes: &[u8]) -> String {
    let shown = &bytes[..bytes.len().min(1200)];
    let cut = if shown.len() < bytes.len() { format!("… ({} bytes)", bytes.len()) } else { String::new() };
    format!("{}{cut}", shown.escape_ascii())
}
