//! `RUN --mount=KEY=VALUE,…`
//!
//! The line is cut into options when the file is read; what they say is read once their variables can be replaced, and
//! only where the RUN is needed.

use super::suggest::closest;
use super::{Diagnostic, Span, Word};
use crate::csv;

/// Every key, the other names of some left out.
const KEYS: [&str; 14] = [
    "type",
    "from",
    "source",
    "target",
    "readonly",
    "readwrite",
    "id",
    "sharing",
    "required",
    "size",
    "mode",
    "uid",
    "gid",
    "env",
];

/// The other names of keys.
const ALIASES: [(&str, &str); 5] =
    [("src", "source"), ("dst", "target"), ("destination", "target"), ("ro", "readonly"), ("rw", "readwrite")];

/// A `--mount` as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountFlag {
    options: Vec<MountOption>,
    /// The place of the flag's value.
    pub span: Span,
}

/// One `key` or `key=value`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct MountOption {
    /// The key as written, in lower case.
    key: String,
    value: Option<Word>,
    span: Span,
}

/// What is mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MountType {
    /// Files of the context, a stage or an image.
    Bind,
    /// A directory that outlives the build.
    Cache,
    /// An empty directory.
    Tmpfs,
    /// A secret of the command line, as a file or an environment variable.
    Secret,
    /// An SSH agent's socket.
    Ssh,
}

/// Who may use a cache at the same time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum MountSharing {
    /// Everybody.
    #[default]
    Shared,
    /// One; others get a cache of their own.
    Private,
    /// One; others wait.
    Locked,
}

/// What a `--mount` says, variables replaced. An option that is given as nothing is absent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountOptions {
    /// `type`
    pub kind: MountType,
    /// `from`: a stage, its number, or an image.
    pub from: Option<Word>,
    /// `source`
    pub source: Option<Word>,
    /// `target`
    pub target: Option<Word>,
    /// `id`. A secret may call it `source`.
    pub id: Option<String>,
    /// `readonly` or `readwrite`, or what the type has without them.
    pub read_only: bool,
    /// `sharing`
    pub sharing: MountSharing,
    /// `required`
    pub required: bool,
    /// `size` in bytes; zero is no limit and absent.
    pub size: Option<u64>,
    /// `mode`
    pub mode: Option<u32>,
    /// `uid`
    pub uid: Option<u32>,
    /// `gid`
    pub gid: Option<u32>,
    /// `env`
    pub env: Option<Word>,
    /// What was said and means nothing for this type.
    pub warnings: Vec<Diagnostic>,
}

impl MountType {
    const ALL: [Self; 5] = [Self::Bind, Self::Cache, Self::Tmpfs, Self::Secret, Self::Ssh];

    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bind => "bind",
            Self::Cache => "cache",
            Self::Tmpfs => "tmpfs",
            Self::Secret => "secret",
            Self::Ssh => "ssh",
        }
    }

    /// The keys that mean something.
    fn keys(self) -> &'static [&'static str] {
        match self {
            Self::Bind => &["type", "from", "source", "target", "readonly", "readwrite"],
            Self::Cache => {
                &["type", "id", "target", "from", "source", "sharing", "mode", "uid", "gid", "readonly", "readwrite"]
            }
            Self::Tmpfs => &["type", "target", "size", "readonly", "readwrite"],
            Self::Secret => &["type", "id", "source", "target", "env", "required", "mode", "uid", "gid", "readonly"],
            Self::Ssh => &["type", "id", "target", "required", "mode", "uid", "gid", "readonly"],
        }
    }

    /// Whether a key that means nothing is passed over with a warning, as BuildKit passes over it without one.
    fn tolerates(self, key: &str) -> bool {
        match self {
            Self::Bind => ["id", "env"].contains(&key),
            Self::Cache => key == "env",
            Self::Tmpfs => ["id", "env", "from", "source"].contains(&key),
            Self::Secret => key == "readwrite",
            Self::Ssh => ["env", "from", "readwrite"].contains(&key),
        }
    }
}

impl MountFlag {
    /// Cuts the value of a flag into options.
    pub(super) fn parse(word: &Word) -> Result<Self, Diagnostic> {
        // Where quotes or a line end were taken off, only the whole has a place.
        let exact = word.span.len() == word.raw.len();
        let place = |start: usize, end: usize| {
            if exact { Span::new(word.span.start + start, word.span.start + end) } else { word.span }
        };
        let fields = csv::fields(&word.raw).map_err(|error| {
            Diagnostic::new(format!("RUN --mount: {}", error.message)).at(place(error.range.start, error.range.end))
        })?;
        let mut options = Vec::new();
        for csv::Field { text, range } in fields {
            let span = place(range.start, range.end);
            let (key, value) = match text.split_once('=') {
                Some((key, value)) => {
                    let unquoted = text.len() == range.len();
                    let at = if unquoted { place(range.end - value.len(), range.end) } else { span };
                    (key, Some(Word { raw: value.to_owned(), span: at }))
                }
                None => (&text[..], None),
            };
            let option = MountOption { key: key.to_lowercase(), value, span };
            if option.name() == "from"
                && let Some(value) = &option.value
                && value.raw.contains('$')
            {
                return Err(Diagnostic::new("variables are not expanded in from=").at(value.span).help(
                    "define a stage with FROM, using an ARG that stands before the first FROM, and name that stage",
                ));
            }
            options.push(option);
        }
        Ok(Self { options, span: word.span })
    }

    /// The stage or image that is mounted from.
    pub fn from(&self) -> Option<&Word> {
        let from = self.options.iter().rev().find(|option| option.name() == "from")?;
        from.value.as_ref().filter(|from| !from.raw.is_empty())
    }

    /// What the options say. `expand` replaces variables.
    pub fn read(
        &self,
        expand: &mut dyn FnMut(&Word) -> Result<String, crate::Error>,
    ) -> Result<MountOptions, crate::Error> {
        let mut given = Vec::new();
        for option in &self.options {
            let name = option.name();
            if !KEYS.contains(&name) {
                return Err(option.unknown().into());
            }
            let value = match &option.value {
                // It was checked to hold no variable.
                Some(word) if name == "from" => Some(word.clone()),
                Some(word) => Some(Word { raw: expand(word)?, span: word.span }),
                None if ["readonly", "readwrite", "required"].contains(&name) => None,
                None => {
                    let error = Diagnostic::new(format!("'{}' needs a value", option.key)).at(option.span);
                    return Err(error.help(format!("write {}=VALUE", option.key)).into());
                }
            };
            given.push(Given { name, value, option });
        }
        Ok(read(&given, self.span)?)
    }
}

impl MountOption {
    /// The first of the key's names.
    fn name(&self) -> &str {
        ALIASES.iter().find(|(alias, _)| *alias == self.key).map_or(&self.key, |(_, name)| name)
    }

    fn unknown(&self) -> Diagnostic {
        let error = Diagnostic::new(format!("RUN --mount has no key '{}'", self.key)).at(self.span);
        let names = KEYS.into_iter().chain(ALIASES.map(|(alias, _)| alias));
        match closest(&self.key, names) {
            Some(key) => error.help(format!("did you mean {key}?")),
            None => error.help(format!("the keys are {}", KEYS.join(", "))),
        }
    }
}

/// An option whose variables are replaced.
struct Given<'f> {
    name: &'f str,
    value: Option<Word>,
    option: &'f MountOption,
}

impl Given<'_> {
    /// The value, where there is one.
    fn word(&self) -> Option<Word> {
        self.value.clone().filter(|word| !word.raw.is_empty())
    }

    fn text(&self) -> &str {
        self.value.as_ref().map_or("", |word| &word.raw)
    }

    /// The error that the value is none.
    fn wrong(&self, what: &str) -> Diagnostic {
        Diagnostic::new(format!("'{}' is not {what}", self.text())).at(self.option.span)
    }

    /// Go's truth values; a bare key is true.
    fn truth(&self) -> Result<bool, Diagnostic> {
        match self.value.as_ref().map(|word| word.raw.as_str()) {
            None | Some("1" | "t" | "T" | "TRUE" | "true" | "True") => Ok(true),
            Some("0" | "f" | "F" | "FALSE" | "false" | "False") => Ok(false),
            Some(_) => {
                Err(self.wrong("a truth value").help(format!("write {0}, {0}=true or {0}=false", self.option.key)))
            }
        }
    }

    fn id(&self, what: &str) -> Result<u32, Diagnostic> {
        // The greatest number means "nobody" to the kernel.
        let digits = self.text().bytes().all(|byte| byte.is_ascii_digit());
        let number = self.text().parse().ok().filter(|&id| digits && id != u32::MAX);
        number.ok_or_else(|| self.wrong(what).help("names are not looked up here: write the number"))
    }

    fn mode(&self) -> Result<u32, Diagnostic> {
        let digits = self.text().bytes().all(|byte| byte.is_ascii_digit());
        let mode = u32::from_str_radix(self.text(), 8).ok().filter(|mode| digits && *mode <= 0o7777);
        mode.ok_or_else(|| self.wrong("a mode").help("write 0 to 7777 in octal digits"))
    }
}

/// One of `names`, in any case.
fn choice<T: Copy>(given: &Given<'_>, what: &str, choices: &[(&'static str, T)]) -> Result<T, Diagnostic> {
    let value = given.text().to_lowercase();
    if let Some((_, choice)) = choices.iter().find(|(name, _)| *name == value) {
        return Ok(*choice);
    }
    let error = Diagnostic::new(format!("there is no {what} '{}'", given.text())).at(given.option.span);
    let names = || choices.iter().map(|(name, _)| *name);
    Err(match closest(&value, names()) {
        Some(name) => error.help(format!("did you mean {}={name}?", given.option.key)),
        None => error.help(format!("there are {}", names().collect::<Vec<_>>().join(", "))),
    })
}

/// What the options say together. Of two with one meaning the later holds.
fn read(given: &[Given<'_>], span: Span) -> Result<MountOptions, Diagnostic> {
    let kinds = MountType::ALL.map(|kind| (kind.name(), kind));
    let mut options = MountOptions {
        kind: MountType::Bind,
        from: None,
        source: None,
        target: None,
        id: None,
        read_only: false,
        sharing: MountSharing::default(),
        required: false,
        size: None,
        mode: None,
        uid: None,
        gid: None,
        env: None,
        warnings: Vec::new(),
    };
    for given in given.iter().filter(|given| given.name == "type") {
        options.kind = choice(given, "mount type", &kinds)?;
    }
    let kind = options.kind;
    let mut read_only = None;
    for given in given {
        if !kind.keys().contains(&given.name) {
            let message = format!("a {} mount has no '{}'", kind.name(), given.option.key);
            if !kind.tolerates(given.name) {
                let help = format!("its keys are {}", kind.keys().join(", "));
                return Err(Diagnostic::new(message).at(given.option.span).help(help));
            }
            options.warnings.push(Diagnostic::warning(message).at(given.option.span).label("it has no effect"));
            continue;
        }
        match given.name {
            "from" => options.from = given.word(),
            "source" => options.source = given.word(),
            "target" => options.target = given.word(),
            "id" => options.id = given.word().map(|word| word.raw),
            "env" => options.env = Some(variable(given)?),
            "readonly" => read_only = Some(given.truth()?),
            "readwrite" => read_only = Some(!given.truth()?),
            "required" => options.required = given.truth()?,
            "size" => options.size = size(given)?,
            "mode" => options.mode = Some(given.mode()?),
            "uid" => options.uid = Some(given.id("the number of a user")?),
            "gid" => options.gid = Some(given.id("the number of a group")?),
            "sharing" => {
                let choices = [MountSharing::Shared, MountSharing::Private, MountSharing::Locked]
                    .map(|sharing| (sharing.name(), sharing));
                options.sharing = choice(given, "sharing", &choices)?;
            }
            _ => {}
        }
    }
    options.read_only = read_only.unwrap_or(!matches!(kind, MountType::Cache | MountType::Tmpfs));
    if kind == MountType::Secret {
        secret_id(&mut options, given, span)?;
    }
    Ok(options)
}

impl MountSharing {
    /// The word for it.
    fn name(self) -> &'static str {
        match self {
            Self::Shared => "shared",
            Self::Private => "private",
            Self::Locked => "locked",
        }
    }
}

/// A secret is known by `id`, by `source`, which means the same, or by the last component of its target.
fn secret_id(options: &mut MountOptions, given: &[Given<'_>], span: Span) -> Result<(), Diagnostic> {
    if let Some(source) = options.source.take() {
        if options.id.is_some() {
            let at = given.iter().rfind(|given| given.name == "source").map_or(span, |given| given.option.span);
            return Err(Diagnostic::new("a secret mount has both id and source, which mean the same").at(at));
        }
        options.id = Some(source.raw);
    }
    if options.id.is_none() {
        let target = options.target.as_ref().map(|target| target.raw.trim_end_matches('/'));
        let name = target.and_then(|target| target.rsplit('/').next()).filter(|name| !name.is_empty());
        options.id = name.map(str::to_owned);
    }
    if options.id.is_none() {
        return Err(Diagnostic::new("a secret mount needs an id or a target").at(span).help("write id=NAME"));
    }
    Ok(())
}

/// The name of an environment variable.
fn variable(given: &Given<'_>) -> Result<Word, Diagnostic> {
    let named = given.word().filter(|word| !word.raw.contains(['=', '\0']));
    named.ok_or_else(|| given.wrong("the name of an environment variable"))
}

/// A number of bytes as Docker writes it: `64m`, `1.5GiB`, `1000`. All units are powers of 1024.
fn size(given: &Given<'_>) -> Result<Option<u64>, Diagnostic> {
    let text = given.text();
    let wrong = || given.wrong("a size").help("write a number and k, m, g or t, as in 64m");
    let end = text.rfind(|c: char| c.is_ascii_digit() || c == '.' || c == ' ').map_or(0, |at| at + 1);
    let (number, unit) = text.split_at(end);
    let number = number.strip_suffix(' ').unwrap_or(number);
    let unit = unit.to_ascii_lowercase();
    let power = match unit.strip_suffix("ib").or(unit.strip_suffix('b')).unwrap_or(&unit) {
        "" if !unit.starts_with('i') => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return Err(wrong()),
    };
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return Err(wrong());
    }
    let bytes = number.parse::<f64>().map_err(|_| wrong())? * 1024_f64.powi(power);
    if bytes >= i64::MAX as f64 {
        return Err(wrong());
    }
    Ok(Some(bytes as u64).filter(|&bytes| bytes > 0))
}

#[cfg(test)]
mod tests;
