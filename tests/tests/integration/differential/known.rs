//! In what our images differ from BuildKit's and Buildah's, and why.

use yadokari_tests::dialect::Difference;
use yadokari_tests::oracle::Builder;

/// A difference that is meant.
#[derive(Debug)]
pub(super) struct Known {
    builder: Builder,
    /// Patterns of cases, separated by spaces.
    cases: &'static str,
    /// Patterns of fields, separated by `|`.
    fields: &'static str,
    /// What the other builder has there, if only that is meant.
    theirs: Option<&'static str>,
    /// Why.
    reason: &'static str,
    /// Whether it is there in some rounds only.
    pub(super) is_by_chance: bool,
}

const fn known(builder: Builder, cases: &'static str, fields: &'static str, reason: &'static str) -> Known {
    Known { builder, cases, fields, theirs: None, reason, is_by_chance: false }
}

/// What BuildKit does otherwise.
const fn buildkit(cases: &'static str, fields: &'static str, reason: &'static str) -> Known {
    known(Builder::BuildKit, cases, fields, reason)
}

/// What Buildah does otherwise.
const fn buildah(cases: &'static str, fields: &'static str, reason: &'static str) -> Known {
    known(Builder::Buildah, cases, fields, reason)
}

impl Known {
    const fn where_theirs_is(self, theirs: &'static str) -> Self {
        Self { theirs: Some(theirs), ..self }
    }

    const fn by_chance(self) -> Self {
        Self { is_by_chance: true, ..self }
    }
}

/// All that are.
pub(super) const KNOWN: &[Known] = &[
    // The whole image.
    buildkit("*", "/* time", "a file that comes or goes touches its directory, which ours does not")
        .where_theirs_is("now"),
    buildkit(
        "run-changes-nothing run-shell-set copy-wildcard-nothing copy-from-wildcard-nothing image-* meta-workdir-*",
        "layers|history[*].empty_layer",
        "a step that changes nothing makes no layer; BuildKit makes an empty one",
    ),
    // Mistakes that BuildKit lets pass.
    buildkit("copy-many-to-file copy-wildcard-many-to-file", "outcome", "BuildKit keeps the last of several files"),
    buildkit("copy-chown-unknown-*", "outcome", "BuildKit takes a name that the image does not know for root's"),
    buildkit(
        "meta-workdir-user-unknown-group",
        "outcome",
        "BuildKit takes a group that the image does not know for root's",
    ),
    buildkit("run-empty", "outcome", "an instruction without arguments is a mistake"),
    buildkit("stage-trigger-unknown", "outcome", "BuildKit looks at a trigger only where it is pulled"),
    buildkit(
        "var-pattern-escape-backtick",
        "config.Env|history[*",
        "BuildKit's patterns know the backslash only, whatever the escape character",
    ),
    // Newer than Debian's BuildKit: the frontend has it from 1.20 on.
    buildkit("copy-parents* run-security-sandbox", "outcome", "Debian's BuildKit does not know the flag yet"),
    // Names of stages.
    buildkit(
        "stage-name-case-from stage-base-number stage-target-number",
        "outcome",
        "a stage's name in another case, and its number, mean the stage everywhere",
    ),
    // Files.
    buildkit(
        "run-metadata image-empty-copy",
        "/dir/sub/deep time|/etc kind",
        "BuildKit drops a change of a directory's time alone",
    ),
    buildkit(
        "run-link-to-lower",
        "/* names",
        "an overlay parts the names of a lower file, and BuildKit drops the one that looks unchanged",
    ),
    buildkit(
        "add-archive-hard-link-header",
        "/t/* mode|/t/* owner",
        "a hard link has no mode and owner of its own: the first name's hold",
    ),
    buildkit("add-archive-whiteout", "outcome", "a file named like a whiteout would remove another file of the image"),
    buildkit(
        "add-archive-hard-link-of-link",
        "/t/* names",
        "names of a symbolic link are parted: not every unpacker can make them",
    ),
    buildkit("ignore-escape", "/x/a.txt kind", "BuildKit makes a regular expression of the rule, where \\a is a bell"),
    // Privileges.
    buildkit("run-device", "outcome", "a RUN may not make devices"),
    buildkit(
        "run-signal",
        "outcome",
        "BuildKit's shell is the first process of its namespace, which no signal from inside ends",
    ),
    buildkit("run-network-none", "/x kind", "/sys is the container's own and names devices that cannot be used"),
    // What is put together by chance.
    buildkit("generated-*", "layers|history[*].empty_layer", "a step that changes nothing makes no layer"),
    buildkit(
        "generated-*",
        "/etc kind",
        "a copied directory gives its time to the destination, which a later file touches",
    ),
    // Buildah's images.
    buildah("*", "history[*", "Buildah writes other words into the history"),
    buildah("*", "layers", "Buildah makes one layer of all steps"),
    buildah("*", "config.ArgsEscaped", "Buildah does not mark commands as escaped"),
    buildah("*", "config.Hostname|container|container_config", "Buildah keeps traces of its containers"),
    buildah("*", "/* time", "a file that comes or goes touches its directory, which ours does not")
        .where_theirs_is("now"),
    buildah("*", "/*tool mode|/modes/s* mode", "Buildah drops set-ID bits of what it copies"),
    buildah(
        "*",
        "/base/volume kind|/base kind|/base owner|/a* kind|/relative kind",
        "Buildah makes the directories of volumes",
    ),
    // What Buildah lets pass.
    buildah(
        "add-archive-whiteout copy-many-to-file copy-wildcard-many-to-file \
         meta-workdir-user-unknown-group stage-trigger-unknown",
        "outcome",
        "Buildah does not mind, as BuildKit",
    ),
    // What Buildah does not know.
    buildah("copy-wildcard-nothing copy-from-wildcard-nothing", "outcome", "Buildah wants a match"),
    buildah("copy-chmod-symbolic", "outcome", "Buildah has octal modes only"),
    buildah("meta-healthcheck-interval-zero meta-healthcheck-retries-zero", "outcome", "Buildah refuses zeros"),
    buildah("stage-name-case* stage-target-case stage-base-number", "outcome", "Buildah's stages have one spelling"),
    buildah("stage-triggers-copy-from stage-triggers-heredoc", "outcome", "Buildah's triggers are simpler"),
    buildah("var-operators", "outcome", "Buildah's operators need a colon"),
    buildah("lex-escape-backtick", "outcome", "Buildah's expansion knows the backslash only"),
    // What Buildah takes for something else.
    buildah("var-pattern*", "config.Env", "Buildah's patterns are Go's"),
    buildah("var-special-parameters", "config.Env", "Buildah has fewer special parameters"),
    buildah(
        "arg-*",
        "config.Labels|/x kind",
        "Buildah's arguments: an ENV before them wins, they do not see each other, TARGETSTAGE is empty, proxies are declared",
    ),
    buildah("stage-config-changed", "config.Env", "Buildah moves a changed variable to the end"),
    buildah("stage-name-twice", "config.Labels", "Buildah takes whichever of two stages of a name it started first")
        .by_chance(),
    buildah(
        "stage-name-reserved-scratch",
        "/a.txt kind|config.Cmd|config.WorkingDir",
        "Buildah's scratch is never a stage",
    ),
    buildah(
        "lex-double-escape",
        "config.Env|/x*",
        "Buildah takes an escaped escape at the end of a line for a continuation",
    ),
    buildah("lex-json-trailing", "config.Cmd", "Buildah passes over what follows a JSON form"),
    buildah("lex-crlf-heredoc", "/file kind|/seen kind", "Buildah drops carriage returns"),
    buildah("*heredoc*", "/file kind|/x kind", "Buildah ends an expanded document with one more newline"),
    buildah("meta-expose*", "config.ExposedPorts", "Buildah writes ports as they are given"),
    buildah(
        "meta-entrypoint-shell-form meta-shell-affects-forms",
        "config.Cmd|config.Entrypoint",
        "Buildah's SHELL is RUN's alone",
    ),
    buildah("ignore-escape", "/x/a.txt kind", "Buildah makes a regular expression of the rule, as BuildKit"),
    buildah("ignore-exception-parent", "/x/top* mode", "Buildah makes the directories above an exception anew"),
    // Files of Buildah's.
    buildah("copy-file-over-*link", "/*", "Buildah replaces a link at the destination, or goes into it"),
    buildah(
        "copy-chmod copy-chmod-and-chown",
        "/dir mode|/new* mode|/d mode",
        "Buildah's --chmod does not reach the destination",
    ),
    buildah("copy-socket", "/special/socket kind", "Buildah leaves sockets out"),
    buildah("run-metadata", "/dir/hard *|/dir/one *", "one layer keeps the names of a file together"),
    buildah("run-nothing-from-outside", "/seen kind", "Buildah's RUN finds a file of its own in the root"),
    buildah("image-empty-copy", "/etc kind", "Buildah drops a change of a directory's time alone"),
    buildah("add-archive-chown", "/t/* owner", "Buildah's --chown does not reach an archive"),
    buildah("add-archive-hard-link-header", "/t/* mode|/t/* owner", "Buildah's names of a file take the last header"),
    buildah("add-archive-hard-link-of-link", "outcome", "Buildah makes no names of symbolic links"),
    buildah("meta-cmd-empty", "config.Cmd", "Buildah's empty command has no words"),
    buildah("add-archive-no-unpack", "outcome", "Buildah does not know ADD --unpack"),
    buildah("copy-link-over-symlink", "/*", "Buildah's --link follows links of the stage"),
    buildah("copy-exclude", "/y/sub*", "Buildah matches --exclude from the context's root"),
    buildah(
        "run-heredoc-shebang run-mount-tmpfs run-mount-secret-env",
        "outcome",
        "Buildah knows no script with an interpreter under chroot isolation, no size of a tmpfs and no secret in a variable",
    ),
    // What is put together by chance.
    buildah("generated-*", "outcome", "Buildah wants a match"),
    buildah("generated-*", "config.ExposedPorts", "Buildah writes ports as they are given"),
    buildah("generated-*", "config.Env", "Buildah moves a changed variable to the end"),
    buildah("generated-*", "/*/end kind", "Buildah ends an expanded document with one more newline"),
    buildah("generated-* image-history-words", "/* mode", "Buildah's --chmod does not reach the destination"),
    buildah("generated-*", "/v kind|/w kind|/x y kind|/none kind", "Buildah makes the directories of volumes"),
    buildah(
        "generated-*",
        "/etc kind",
        "a copied directory gives its time to the destination, which a later file touches",
    ),
];

/// Cases of what is not carried out yet, and what that is.
pub(super) const PENDING: &[(&str, &str)] = &[];

impl Known {
    /// Whether it is the one that is meant.
    pub(super) fn matches(&self, builder: Builder, case: &str, difference: &Difference) -> bool {
        self.builder == builder
            && is_like(self.cases, case)
            && self.fields.split('|').any(|pattern| is_like_one(pattern, &difference.field))
            && self.theirs.is_none_or(|theirs| difference.theirs.as_deref() == Some(theirs))
    }
}

/// Why a field differs.
pub(super) fn reason(builder: Builder, case: &str, difference: &Difference) -> Option<&'static str> {
    KNOWN.iter().find(|known| known.matches(builder, case, difference)).map(|known| known.reason)
}

/// Whether one of `patterns`, which spaces separate, is like `name`.
pub(super) fn is_like(patterns: &str, name: &str) -> bool {
    patterns.split(' ').any(|pattern| is_like_one(pattern, name))
}

/// Whether `text` is `pattern`, whose `*` stands for anything.
fn is_like_one(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((before, after)) => text.strip_prefix(before).is_some_and(|rest| {
            (0..=rest.len()).filter(|at| rest.is_char_boundary(*at)).any(|at| is_like_one(after, &rest[at..]))
        }),
    }
}

#[test]
fn a_star_stands_for_anything() {
    assert!(is_like("x a*c*e", "abcde") && is_like("*", "") && !is_like("a*c", "abcd") && !is_like("", "a"));
}
