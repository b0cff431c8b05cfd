//! The place of every error of the parser: what stands under the caret.

use super::{Source, parse};

/// What the error of a file points at, and its help.
fn error(text: &str) -> (String, Option<String>) {
    let error = parse(&Source::new("Dockerfile", text)).unwrap_err();
    let span = error.span.unwrap_or_else(|| panic!("{text}: '{error}' has no place"));
    (text[span.start..span.end].to_owned(), error.help)
}

#[test]
fn errors_point_at_what_is_wrong() {
    let cases = [
        ("# escape=x", "x"),
        ("# escape=`\n#  Escape = `", "#  Escape = `"),
        ("RNU true", "RNU"),
        ("ENV =b", ""),
        ("ENV a", "a"),
        ("ENV a=b c d=e", "c"),
        ("LABEL a=b \\\n  c", "c"),
        ("ARG =b", ""),
        ("WORKDIR", "WORKDIR"),
        ("USER --x a", "--x"),
        ("VOLUME []", "[]"),
        ("VOLUME [\"a\", 1]", "[\"a\", 1]"),
        ("COPY a", "COPY a"),
        ("COPY --chwon=x a b", "--chwon=x"),
        ("COPY --from a b", "--from"),
        ("COPY --chown=a --chown=b c d", "--chown=b"),
        ("COPY --from=$x a b", "$x"),
        ("COPY --from= a b", ""),
        ("COPY a <<EOF\nEOF", "<<EOF"),
        ("RUN cat <<EOF\nx", "<<EOF"),
        ("SHELL /bin/sh", "/bin/sh"),
        ("HEALTHCHECK CMDD a", "CMDD"),
        ("HEALTHCHECK CMD", "HEALTHCHECK CMD"),
        ("HEALTHCHECK NONE a", "NONE a"),
        ("HEALTHCHECK --retries=x CMD a", "x"),
        ("HEALTHCHECK --interval=5 CMD a", "5"),
        ("HEALTHCHECK --interval=1us CMD a", "1us"),
        ("ONBUILD ONBUILD RUN a", "ONBUILD"),
        ("ONBUILD RUNN a", "RUNN"),
        ("ONBUILD COPY --form=a b c", "--form=a"),
        ("FROM", "FROM"),
        ("FROM b AS 1c", "1c"),
        ("FROM b is c", "FROM b is c"),
        ("FROM --platfrom=x b", "--platfrom=x"),
    ];
    for (line, place) in cases {
        let text = if line.starts_with('#') { format!("{line}\nFROM a\n") } else { format!("FROM a\n{line}\n") };
        assert_eq!(error(&text).0, place, "{line}");
    }
    assert_eq!(error("ENV a=b\nFROM a\n").0, "ENV");
}

#[test]
fn mistyped_words_are_suggested() {
    let cases = [
        ("RNU true", "did you mean RUN?"),
        ("copyy a b", "did you mean COPY?"),
        ("ONBUILD WORKDRI a", "did you mean WORKDIR?"),
        ("COPY --chwon=x a b", "did you mean --chown?"),
        ("FROM --platfrom=x b", "did you mean --platform?"),
        ("HEALTHCHECK CMDD a", "did you mean HEALTHCHECK CMD?"),
        ("HEALTHCHECK NONNE", "did you mean HEALTHCHECK NONE?"),
        ("WORKDIR", "write WORKDIR PATH"),
        ("ARG", "write ARG NAME or ARG NAME=DEFAULT"),
        ("ENV", "write ENV KEY=VALUE"),
    ];
    for (line, help) in cases {
        assert_eq!(error(&format!("FROM a\n{line}\n")).1.as_deref(), Some(help), "{line}");
    }
}
