//! The value of `--chmod`: octal digits, or changes in the words of chmod.

/// The bits that `=` without a class clears: all but the sticky one.
const STANDARD: u32 = 0o6777;
const STICKY: u32 = 0o1000;

/// What `--chmod` makes of a mode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// This, whatever it was: `0755`.
    Exact(u32),
    /// Changes of what it was: `u=rwX,go=rX`.
    Symbolic(Symbolic),
}

/// Changes of a mode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Symbolic {
    /// As it is written.
    text: String,
    changes: Vec<Change>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Clear(u32),
    Set(u32),
    /// `X`: only where the mode was executable by anyone, or is a directory's.
    IfExecutable {
        bits: u32,
        set: bool,
    },
    /// The three bits at `from` set, or taken off (`set`, `clear`), those of the classes whose bits are in `who`.
    Copy {
        from: u32,
        who: u32,
        set: bool,
        clear: bool,
    },
}

impl Mode {
    /// Reads the value of `--chmod`, as BuildKit does: what names no class is for all of them, whatever the
    /// umask. `None` where it is no mode.
    pub fn parse(text: &str) -> Option<Self> {
        if text.starts_with(|c: char| c.is_ascii_digit()) {
            let octal = text.bytes().all(|byte| matches!(byte, b'0'..=b'7'));
            return u32::from_str_radix(text, 8).ok().filter(|mode| octal && *mode <= 0o7777).map(Self::Exact);
        }
        let mut changes = Vec::new();
        for clause in text.split(',') {
            clause_changes(clause, &mut changes)?;
        }
        Some(Self::Symbolic(Symbolic { text: text.to_owned(), changes }))
    }

    /// The mode of what had `mode` before.
    pub fn apply(&self, mode: u32, directory: bool) -> u32 {
        let changes = match self {
            Self::Exact(mode) => return *mode,
            Self::Symbolic(symbolic) => &symbolic.changes,
        };
        let executable = directory || mode & 0o111 != 0;
        changes.iter().fold(mode, |mode, change| change.apply(mode, executable))
    }

    /// The mode of a directory that has to be made on the way, where this says one: changes have nothing to change, and
    /// the special bits are for what is copied.
    pub fn of_new_directory(&self) -> u32 {
        match self {
            Self::Exact(mode) => *mode & 0o777,
            Self::Symbolic(_) => 0o755,
        }
    }

    /// The bytes that stand for it in a key.
    pub(super) fn key(&self) -> Vec<u8> {
        match self {
            Self::Exact(mode) => mode.to_le_bytes().to_vec(),
            Self::Symbolic(symbolic) => symbolic.text.clone().into_bytes(),
        }
    }
}

impl Change {
    fn apply(self, mode: u32, executable: bool) -> u32 {
        match self {
            Self::Clear(bits) => mode & !bits,
            Self::Set(bits) => mode | bits,
            Self::IfExecutable { .. } if !executable => mode,
            Self::IfExecutable { bits, set: true } => mode | bits,
            Self::IfExecutable { bits, set: false } => mode & !bits,
            Self::Copy { from, who, set, clear } => {
                let value = mode >> from & 7;
                let everywhere = |value: u32| (value << 6 | value << 3 | value) & who & 0o777;
                let cleared = match (clear, set) {
                    (true, true) => mode & !everywhere(7),
                    (true, false) => mode & !everywhere(value),
                    (false, _) => mode,
                };
                if set { cleared | everywhere(value) } else { cleared }
            }
        }
    }
}

/// `[ugoa]*` and then one or more of an operator with its permissions.
fn clause_changes(clause: &str, changes: &mut Vec<Change>) -> Option<()> {
    let operators = clause.find(|c| !matches!(c, 'u' | 'g' | 'o' | 'a'))?;
    let who = clause[..operators].chars().fold(0, |who, class| {
        who | match class {
            'u' => 0o4700,
            'g' => 0o2070,
            'o' => 0o007,
            _ => STANDARD,
        }
    });
    let mut rest = &clause[operators..];
    while let Some(operator) = rest.chars().next() {
        let permissions = &rest[operator.len_utf8()..];
        let end = permissions.find(['+', '-', '=']).unwrap_or(permissions.len());
        operation(operator, who, &permissions[..end], changes)?;
        rest = &permissions[end..];
    }
    Some(())
}

fn operation(operator: char, mut who: u32, permissions: &str, changes: &mut Vec<Change>) -> Option<()> {
    if !matches!(operator, '+' | '-' | '=') {
        return None;
    }
    // The special bits do not belong to the class of others.
    let special = who == 0 || who & !0o007 != 0;
    let (mut bits, mut executable, mut copied) = (0, 0, false);
    for permission in permissions.chars() {
        match permission {
            'r' => bits |= 0o444,
            'w' => bits |= 0o222,
            'x' => bits |= 0o111,
            'X' => executable = 0o111,
            's' if special => bits |= 0o6000,
            't' if special => {
                who |= STICKY;
                bits |= STICKY;
            }
            's' | 't' => {}
            'u' | 'g' | 'o' => {
                flush(operator, who, std::mem::take(&mut bits), std::mem::take(&mut executable), false, changes);
                let from = match permission {
                    'u' => 6,
                    'g' => 3,
                    _ => 0,
                };
                let who = if who == 0 { 0o777 } else { who };
                changes.push(Change::Copy { from, who, set: operator != '-', clear: operator != '+' });
                copied = true;
            }
            _ => return None,
        }
    }
    flush(operator, who, bits, executable, operator == '=' && !copied, changes);
    Some(())
}

/// States the permissions read so far. With nothing to state, only `=` still clears, and only where it `must`.
fn flush(operator: char, who: u32, bits: u32, executable: u32, must: bool, changes: &mut Vec<Change>) {
    let of_who = |bits: u32| if who == 0 { bits } else { bits & who };
    if bits != 0 || must {
        match operator {
            '-' => changes.push(Change::Clear(of_who(bits))),
            '+' => changes.push(Change::Set(of_who(bits))),
            _ => changes.extend([Change::Clear(if who == 0 { STANDARD } else { who }), Change::Set(of_who(bits))]),
        }
    }
    if executable != 0 {
        changes.push(Change::IfExecutable { bits: of_who(executable), set: operator != '-' });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(text: &str, mode: u32, directory: bool) -> u32 {
        Mode::parse(text).unwrap_or_else(|| panic!("{text}")).apply(mode, directory)
    }

    #[test]
    fn octal_modes_replace() {
        assert_eq!(Mode::parse("0755"), Some(Mode::Exact(0o755)));
        assert_eq!(changed("0", 0o777, false), 0);
        assert_eq!(Mode::Exact(0o4711).of_new_directory(), 0o711);
        assert_eq!(Mode::parse("7777"), Some(Mode::Exact(0o7777)));
    }

    /// What a BuildKit of Docker 28.5 made of files and directories of these modes.
    #[test]
    fn symbolic_modes_change_as_buildkits_do() {
        let file = [
            ("u+x", 0o640, 0o740),
            ("ugo=", 0o4711, 0),
            ("-x", 0o4711, 0o4600),
            ("a=rwx", 0o4711, 0o777),
            ("u+X", 0o640, 0o640),
            ("u+X", 0o011, 0o111),
            ("g+s", 0o4711, 0o6711),
            ("o+t", 0o755, 0o755),
            ("+s", 0o600, 0o6600),
            ("u=g", 0o4711, 0o4111),
            ("ug=o", 0o755, 0o555),
            ("u+rw-x", 0o4711, 0o4611),
            ("u+", 0o755, 0o755),
            ("+w", 0o600, 0o622),
            ("=r", 0o4711, 0o444),
            ("u=rwX,go=rX", 0o744, 0o755),
            ("u=rwX,go=rX", 0o640, 0o644),
            ("a=rX,u+w", 0o4711, 0o755),
            ("go=u-w", 0o600, 0o644),
            ("g=rwu,o=t,o+s", 0o4711, 0o4770),
            ("g+u,o-g", 0o4711, 0o4770),
            ("u+x-w+s,a+t", 0o640, 0o5540),
            ("+X-r", 0o4711, 0o4311),
            ("-s", 0o4711, 0o711),
            ("a-X", 0o4711, 0o4600),
            ("g=X,o-X+r", 0o4711, 0o4714),
        ];
        for (text, before, after) in file {
            assert_eq!(changed(text, before, false), after, "{text} {before:o}");
        }
        let directory = [
            ("u+X", 0o600, 0o700),
            ("ugo=", 0o2770, 0),
            ("-x", 0o2770, 0o2660),
            ("u=g", 0o2770, 0o2770),
            ("ug=o", 0o2770, 0o2000),
            ("g+s", 0o750, 0o2750),
            ("=r", 0o2770, 0o444),
        ];
        for (text, before, after) in directory {
            assert_eq!(changed(text, before, true), after, "{text} {before:o}");
        }
    }

    #[test]
    fn what_is_no_mode_is_refused() {
        for text in ["", "rwx", "u", "x+u", "u+x,", ",u+x", "u+l", "755,u+s", "8", "77777", "u*x", "é+x", "u+é", "0x1"]
        {
            assert_eq!(Mode::parse(text), None, "{text}");
        }
    }
}
