//! Cases as they are written: a text file holds many.
//!
//! ```text
//! == name-of-the-case
//! option: --build-arg=A=1
//! FROM busybox
//! COPY file /
//! -- file mode=0600
//! content
//! ```
//!
//! Headers come first: `option` is a word of the command line, which all builders understand alike, `dockerfile` the
//! Dockerfile's path where it is not `Dockerfile`, and `refused` says that the build must fail, and in which words
//! BuildKit says so. The Dockerfile follows, then the files of the context. A line that begins with `#!` before the
//! first case is a comment. `⟦0d⟧` stands for a byte that a text file should not hold, `⟦61*99⟧` for 99 of them.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{At, Error, Result};

/// A Dockerfile and what belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// Its name, of letters, digits and dashes.
    pub name: String,
    /// Where it stands: file and line.
    pub place: String,
    /// Words of the command line.
    pub options: Vec<String>,
    /// The Dockerfile's path in the context.
    pub dockerfile: String,
    /// What BuildKit says, in part, when it refuses to build this. `None` where it builds it.
    pub refused: Option<String>,
    /// The context, with the Dockerfile. A later file of the same path replaces the earlier.
    pub files: Vec<File>,
}

/// A file of the context, or what else a path can be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Where it is.
    pub path: String,
    /// `name=value`, or a name alone: what it is, if not a regular file, and what is special about it.
    pub attributes: Vec<(String, String)>,
    /// The content.
    pub body: String,
}

/// All the cases of a directory: its files that end in `.cases`, in order.
pub fn cases(directory: &Path) -> Result<Vec<Case>> {
    let listed = fs::read_dir(directory).at("list", directory)?;
    let mut files: Vec<_> = listed.flatten().map(|entry| entry.path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "cases"));
    files.sort();
    let read = |file: &PathBuf| parse(file, &fs::read_to_string(file).at("read", file)?);
    Ok(files.iter().map(read).collect::<Result<Vec<_>>>()?.concat())
}

/// The files that the context of every case has: those of the one case in the file `context`.
pub fn common(directory: &Path) -> Result<Vec<File>> {
    let path = directory.join("context");
    let cases = parse(&path, &fs::read_to_string(&path).at("read", &path)?)?;
    Ok(cases.into_iter().flat_map(|case| case.files.into_iter().skip(1)).collect())
}

/// The cases of a text, which is the content of `file`.
pub fn parse(file: &Path, text: &str) -> Result<Vec<Case>> {
    let mut cases: Vec<Case> = Vec::new();
    let mut in_headers = false;
    for (number, line) in text.lines().enumerate() {
        let place = format!("{}:{}", file.file_name().unwrap_or_default().to_string_lossy(), number + 1);
        let wrong = |detail: &str| Error::Case { place: place.clone(), detail: detail.to_owned() };
        if let Some(name) = line.strip_prefix("== ") {
            if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
                return Err(wrong("a name is made of letters, digits and dashes"));
            }
            cases.push(Case::new(name, &place));
            in_headers = true;
            continue;
        }
        let Some(case) = cases.last_mut() else {
            if line.is_empty() || line.starts_with("#!") {
                continue;
            }
            return Err(wrong("a case begins with '== name'"));
        };
        if let Some(head) = line.strip_prefix("-- ") {
            case.files.push(File::parse(head));
            in_headers = false;
        } else if let Some((key, value)) = line.split_once(": ").filter(|(key, _)| in_headers && is_header(key)) {
            match key {
                "option" => case.options.push(value.to_owned()),
                "refused" => case.refused = Some(value.to_owned()),
                _ => {
                    value.clone_into(&mut case.dockerfile);
                    value.clone_into(&mut case.files[0].path);
                }
            }
        } else {
            in_headers = false;
            let file = case.files.last_mut().expect("a case begins with its Dockerfile");
            file.body.push_str(line);
            file.body.push('\n');
        }
    }
    for case in &mut cases {
        // An empty line before the next case parts the two.
        let last = case.files.last_mut().expect("a case begins with its Dockerfile");
        if last.body.ends_with("\n\n") || last.body == "\n" {
            last.body.pop();
        }
    }
    Ok(cases)
}

impl Case {
    /// A case of a Dockerfile that is empty yet.
    pub fn new(name: &str, place: &str) -> Self {
        Self {
            name: name.to_owned(),
            place: place.to_owned(),
            options: Vec::new(),
            dockerfile: "Dockerfile".to_owned(),
            refused: None,
            files: vec![File::parse("Dockerfile")],
        }
    }

    /// The text of the Dockerfile.
    pub fn text(&self) -> &str {
        self.files.first().map_or("", |file| &file.body)
    }

    /// Everything that an image of it depends on.
    pub fn recipe(&self) -> String {
        format!("{:?} {:?} {:?}", self.options, self.dockerfile, self.files)
    }
}

impl File {
    fn parse(head: &str) -> Self {
        let mut words = head.split(' ').filter(|word| !word.is_empty());
        let path = words.next().unwrap_or_default().to_owned();
        let attributes = words.map(|word| {
            let (name, value) = word.split_once('=').unwrap_or((word, ""));
            (name.to_owned(), value.to_owned())
        });
        Self { path, attributes: attributes.collect(), body: String::new() }
    }

    /// The value of an attribute.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(other, _)| other == name).map(|(_, value)| &**value)
    }

    /// The path, with what `⟦…⟧` stands for.
    pub fn name(&self) -> String {
        String::from_utf8_lossy(&unescape(&self.path)).into_owned()
    }

    /// The content, with what `⟦…⟧` stands for. `noeol` takes the last line's end away.
    pub fn content(&self) -> Vec<u8> {
        let body = if self.attribute("noeol").is_some() { self.body.trim_end_matches('\n') } else { &self.body };
        unescape(body)
    }
}

fn is_header(key: &str) -> bool {
    ["option", "refused", "dockerfile"].contains(&key)
}

/// The bytes that a text stands for: `⟦0d⟧` is one, `⟦0d0a*3⟧` are six. What is not of this form stands for itself.
pub(super) fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('⟦') {
        bytes.extend_from_slice(before.as_bytes());
        let (token, after) = after.split_once('⟧').unwrap_or((after, ""));
        let (hex, count) = token.split_once('*').unwrap_or((token, "1"));
        let pairs = (0..hex.len() / 2).filter_map(|n| u8::from_str_radix(hex.get(2 * n..2 * n + 2)?, 16).ok());
        let unit: Vec<u8> = pairs.collect();
        bytes.extend(unit.repeat(count.parse().unwrap_or(1)));
        rest = after;
    }
    bytes.extend_from_slice(rest.as_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_has_headers_a_dockerfile_and_files() {
        let text = "#! comment\n\n== one\noption: --build-arg=A=b c\nrefused: no: such\nFROM x\noption: none\n\n\
                    -- dir/file mode=0600 noeol\ncontent\n\n== two\nFROM y\n";
        let cases = parse(Path::new("dir/x.cases"), text).unwrap();
        let [one, two] = &cases[..] else { panic!("{cases:?}") };
        assert_eq!(
            (&*one.name, &*one.place, &one.options[..]),
            ("one", "x.cases:3", &["--build-arg=A=b c".into()][..])
        );
        assert_eq!((one.refused.as_deref(), one.text()), (Some("no: such"), "FROM x\noption: none\n\n"));
        assert_eq!((&*one.files[1].path, one.files[1].attribute("mode")), ("dir/file", Some("0600")));
        assert_eq!((one.files[1].content(), two.text()), (b"content".to_vec(), "FROM y\n"));
        assert!(parse(Path::new("x"), "FROM x\n").is_err());
    }

    #[test]
    fn bytes_are_written_in_brackets() {
        assert_eq!(unescape("a⟦0d0a*2⟧b⟦efbbbf⟧"), b"a\r\n\r\nb\xef\xbb\xbf");
    }
}
