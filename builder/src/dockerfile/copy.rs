//! COPY and ADD.

use super::arguments::{Statement, words_or_json};
use super::flags::{Flags, Known, boolean, flags, repeatable, value};
use super::heredoc::Document;
use super::text::Text;
use super::{Add, Copy, Diagnostic, Transfer, Word};

const COPY_FLAGS: [Known; 6] =
    [value("from"), value("chown"), value("chmod"), boolean("link"), boolean("parents"), repeatable("exclude")];

const ADD_FLAGS: [Known; 7] = [
    value("chown"),
    value("chmod"),
    boolean("link"),
    repeatable("exclude"),
    value("checksum"),
    boolean("keep-git-dir"),
    boolean("unpack"),
];

/// `COPY [FLAG…] SOURCE… DESTINATION`, or the same as a JSON array
pub(super) fn copy(statement: &Statement<'_>, documents: &[Document]) -> Result<Copy, Diagnostic> {
    let (mut flags, transfer) = transfer("COPY", statement, &COPY_FLAGS, documents)?;
    let from = flags.take("from");
    if let Some(from) = &from {
        check_from(from)?;
    }
    let parents = flags.take_boolean("parents").unwrap_or(false);
    Ok(Copy { from, parents, transfer })
}

/// `ADD [FLAG…] SOURCE… DESTINATION`, or the same as a JSON array
pub(super) fn add(statement: &Statement<'_>, documents: &[Document]) -> Result<Add, Diagnostic> {
    let (mut flags, transfer) = transfer("ADD", statement, &ADD_FLAGS, documents)?;
    let (checksum, keep_git_dir) = (flags.take("checksum"), flags.take_boolean("keep-git-dir"));
    Ok(Add { checksum, keep_git_dir, unpack: flags.take_boolean("unpack"), transfer })
}

fn check_from(from: &Word) -> Result<(), Diagnostic> {
    if from.raw.is_empty() {
        return Err(Diagnostic::new("COPY --from is empty").at(from.span).help("name a stage or an image"));
    }
    if from.raw.contains('$') {
        return Err(Diagnostic::new("variables are not expanded in COPY --from")
            .at(from.span)
            .help("define a stage with FROM, using an ARG that stands before the first FROM, and name that stage"));
    }
    Ok(())
}

/// What COPY and ADD have in common, and the flags that are left.
fn transfer(
    name: &str,
    statement: &Statement<'_>,
    known: &[Known],
    documents: &[Document],
) -> Result<(Flags, Transfer), Diagnostic> {
    let (mut flags, rest) = flags(name, statement.arguments, known)?;
    // Only plain words can introduce a here-document, and each introducer must be one word of the instruction.
    let words: Vec<Text<'_>> = if documents.is_empty() { Vec::new() } else { rest.words() };
    let document_at = |index: usize| {
        let range = words.get(index)?.range();
        documents.iter().find(|document| document.range == range)
    };
    if (0..words.len()).filter_map(document_at).count() < documents.len() {
        let error = Diagnostic::new(format!("the name of a here-document of {name} must not hold spaces"));
        return Err(error.at(rest.span()));
    }
    let arguments = words_or_json(rest)?;
    let Some((destination, sources)) = arguments.split_last().filter(|(_, sources)| !sources.is_empty()) else {
        return Err(Diagnostic::new(format!("{name} needs a source and a destination"))
            .at(statement.span())
            .help(format!("write {name} SOURCE DESTINATION")));
    };
    if document_at(sources.len()).is_some() {
        return Err(Diagnostic::new("a here-document cannot be the destination").at(destination.span));
    }
    let transfer = Transfer {
        chown: flags.take("chown"),
        chmod: flags.take("chmod"),
        link: flags.take_boolean("link").unwrap_or(false),
        exclude: flags.take_all("exclude"),
        sources: (0..sources.len()).filter(|&at| document_at(at).is_none()).map(|at| sources[at].clone()).collect(),
        heredocs: (0..sources.len()).filter_map(document_at).map(Document::file).collect(),
        destination: destination.clone(),
    };
    Ok((flags, transfer))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dockerfile::InstructionKind;
    use crate::dockerfile::parse::only;

    fn raws(words: &[Word]) -> Vec<&str> {
        words.iter().map(|word| word.raw.as_str()).collect()
    }

    fn parsed(line: &str) -> Copy {
        match only(line).unwrap() {
            InstructionKind::Copy(copy) => copy,
            InstructionKind::Add(Add { transfer, .. }) => Copy { from: None, parents: false, transfer },
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn sources_come_before_the_destination() {
        let cases: [(&str, &[&str], &str); 5] = [
            ("COPY a b", &["a"], "b"),
            ("ADD a* https://x/y \\\n  $d/", &["a*", "https://x/y"], "$d/"),
            (r#"COPY ["a b", "c", "/d e/"]"#, &["a b", "c"], "/d e/"),
            ("ADD [ a b", &["[", "a"], "b"),
            ("COPY 'a b' c", &["'a", "b'"], "c"),
        ];
        for (line, sources, destination) in cases {
            let copy = parsed(line).transfer;
            assert_eq!((raws(&copy.sources), copy.destination.raw.as_str()), (sources.to_vec(), destination), "{line}");
        }
    }

    #[test]
    fn flags_are_words() {
        let copy = parsed("COPY --from=build --chown=$u:g --chmod=u=rwX,go=rX a b");
        let raw = |word: Option<Word>| word.map(|word| word.raw);
        assert_eq!(raw(copy.from).as_deref(), Some("build"));
        assert_eq!(raw(copy.transfer.chown).as_deref(), Some("$u:g"));
        assert_eq!(raw(copy.transfer.chmod).as_deref(), Some("u=rwX,go=rX"));
    }

    #[test]
    fn flags_are_on_or_off() {
        for (line, link, parents) in [
            ("COPY a b", false, false),
            ("COPY --link --parents a b", true, true),
            ("COPY --link=true --parents=false a b", true, false),
            ("ADD --link=false a b", false, false),
            ("ADD --link a b", true, false),
        ] {
            let copy = parsed(line);
            assert_eq!((copy.transfer.link, copy.parents), (link, parents), "{line}");
        }
        for (line, unpack) in
            [("ADD a b", None), ("ADD --unpack a b", Some(true)), ("ADD --unpack=false a b", Some(false))]
        {
            let InstructionKind::Add(add) = only(line).unwrap() else { panic!("{line}") };
            assert_eq!(add.unpack, unpack, "{line}");
        }
    }

    #[test]
    fn every_exclude_counts() {
        let copy = parsed("COPY --exclude=*.md --chown=1 --exclude='a b' --exclude=!x a b").transfer;
        assert_eq!(raws(&copy.exclude), ["*.md", "a b", "!x"]);
        assert_eq!(raws(&parsed("ADD --exclude=x a b").transfer.exclude), ["x"]);
    }

    #[test]
    fn here_documents_are_sources() {
        let Copy { transfer: copy, .. } = parsed("COPY <<one f <<-'two' /d/\n$a\none\n\t$b\n\ttwo\n");
        assert_eq!(raws(&copy.sources), ["f"]);
        let files: Vec<_> =
            copy.heredocs.iter().map(|file| (file.name.as_str(), file.expand, file.content.as_str())).collect();
        assert_eq!(files, [("one", true, "$a\n"), ("two", false, "$b\n")]);
    }

    #[test]
    fn wrong_copies_are_refused() {
        let cases = [
            ("COPY a", "COPY needs a source and a destination"),
            ("COPY", "COPY needs a source and a destination"),
            ("ADD []", "ADD needs a source and a destination"),
            ("ADD [\"a\", 1]", "a JSON array must hold strings only"),
            ("COPY --from=$x a b", "variables are not expanded in COPY --from"),
            ("COPY --from= a b", "COPY --from is empty"),
            ("COPY --link=yes a b", "COPY --link is true or false, not 'yes'"),
            ("COPY --link --link a b", "COPY has --link twice"),
            ("COPY --parents=1 a b", "COPY --parents is true or false, not '1'"),
            ("COPY --exclude a b", "COPY --exclude needs a value"),
            ("COPY --unpack a b", "COPY has no flag --unpack"),
            ("COPY --chwon=x a b", "COPY has no flag --chwon"),
            ("ADD --from=x a b", "ADD has no flag --from"),
            ("ADD --parents a b", "ADD has no flag --parents"),
            ("ADD --checksum a b", "ADD --checksum needs a value"),
            ("ADD --keep-git-dir=1 a b", "ADD --keep-git-dir is true or false, not '1'"),
            ("COPY --checksum=sha256:a a b", "COPY has no flag --checksum"),
            ("COPY --keep-git-dir a b", "COPY has no flag --keep-git-dir"),
            ("ADD --unpack= a b", "ADD --unpack is true or false, not ''"),
            ("COPY a <<EOF\nEOF", "a here-document cannot be the destination"),
            ("COPY <<'a b' c\na b", "the name of a here-document of COPY must not hold spaces"),
        ];
        for (line, message) in cases {
            assert_eq!(only(line), Err(message.to_owned()), "{line}");
        }
    }
}
