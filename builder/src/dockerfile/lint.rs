//! The build checks: what they are called, and which of them count in a build.
//!
//! The names are BuildKit's, so that what skips a check there skips it here. A finding is a [`Diagnostic`] made by
//! [`Diagnostic::finding`]. Findings are kept whatever the settings say; [`Policy::admits`] decides at the end, when the
//! directive, the comments above instructions and the build argument are all known.

use std::collections::BTreeMap;

use super::suggest::closest;
use super::{Diagnostic, Span};

/// A check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// A stage's name has capital letters.
    StageNameCasing,
    /// `FROM` and `AS` are not written alike.
    FromAsCasing,
    /// An empty line inside an instruction.
    NoEmptyContinuation,
    /// An instruction is not written as most others are.
    ConsistentInstructionCasing,
    /// Two stages have one name.
    DuplicateStageName,
    /// A stage is called `scratch` or `context`.
    ReservedStageName,
    /// CMD or ENTRYPOINT as text.
    JsonArgsRecommended,
    /// MAINTAINER.
    MaintainerDeprecated,
    /// A FROM uses an argument that no ARG before it declares.
    UndefinedArgInFrom,
    /// The first WORKDIR of a stage is relative.
    WorkdirRelativePath,
    /// A variable that nothing defines.
    UndefinedVar,
    /// A CMD, ENTRYPOINT or HEALTHCHECK that a later one replaces.
    MultipleInstructionsDisallowed,
    /// `ENV key value` and `LABEL key value`.
    LegacyKeyValueFormat,
    /// A base image is for another platform.
    InvalidBaseImagePlatform,
    /// `FROM --platform=$TARGETPLATFORM`
    RedundantTargetPlatform,
    /// A name that looks like a secret's.
    SecretsUsedInArgOrEnv,
    /// Without build arguments a FROM names no image.
    InvalidDefaultArgInFrom,
    /// `FROM --platform=linux/amd64`
    FromPlatformFlagConstDisallowed,
    /// A file to copy is left out of the context.
    CopyIgnoredFile,
    /// A comment above an ARG or FROM does not describe it.
    InvalidDefinitionDescription,
    /// `EXPOSE 80/TCP`
    ExposeProtoCasing,
    /// `EXPOSE 127.0.0.1:80:80`
    ExposeInvalidFormat,
}

/// What is known of a [`Rule`], in the order of the enum.
const TABLE: [(&str, &str); Rule::ALL.len()] = [
    ("StageNameCasing", "the name of a stage is in small letters"),
    ("FromAsCasing", "FROM and AS are both in capitals or both in small letters"),
    ("NoEmptyContinuation", "no empty line stands inside an instruction"),
    ("ConsistentInstructionCasing", "all instructions are in capitals, or all in small letters"),
    ("DuplicateStageName", "every stage has a name of its own"),
    ("ReservedStageName", "no stage has a name with a meaning of its own"),
    ("JSONArgsRecommended", "CMD and ENTRYPOINT are JSON arrays, so that signals reach the program and not a shell"),
    ("MaintainerDeprecated", "a label names the author, not MAINTAINER"),
    ("UndefinedArgInFrom", "FROM uses arguments that an ARG before the first FROM declares"),
    ("WorkdirRelativePath", "the first WORKDIR of a stage is absolute, whatever the base image says"),
    ("UndefinedVar", "a variable is defined before it is used"),
    ("MultipleInstructionsDisallowed", "a stage has one CMD, one ENTRYPOINT and one HEALTHCHECK"),
    ("LegacyKeyValueFormat", "ENV and LABEL are written KEY=VALUE"),
    ("InvalidBaseImagePlatform", "a base image is for the platform that is built for"),
    ("RedundantTargetPlatform", "FROM does not say the platform that it has anyway"),
    ("SecretsUsedInArgOrEnv", "no secret is an ARG or ENV, which everybody can read in the image"),
    ("InvalidDefaultArgInFrom", "FROM names an image even where no build argument is given"),
    ("FromPlatformFlagConstDisallowed", "the platform of FROM is not fixed"),
    ("CopyIgnoredFile", "what is copied is not left out of the context"),
    ("InvalidDefinitionDescription", "a comment above ARG or FROM describes it: # NAME DESCRIPTION"),
    ("ExposeProtoCasing", "the protocol of a port is in small letters"),
    ("ExposeInvalidFormat", "EXPOSE names ports of the container alone, without address or host port"),
];

impl Rule {
    /// Every check.
    pub const ALL: [Self; 22] = [
        Self::StageNameCasing,
        Self::FromAsCasing,
        Self::NoEmptyContinuation,
        Self::ConsistentInstructionCasing,
        Self::DuplicateStageName,
        Self::ReservedStageName,
        Self::JsonArgsRecommended,
        Self::MaintainerDeprecated,
        Self::UndefinedArgInFrom,
        Self::WorkdirRelativePath,
        Self::UndefinedVar,
        Self::MultipleInstructionsDisallowed,
        Self::LegacyKeyValueFormat,
        Self::InvalidBaseImagePlatform,
        Self::RedundantTargetPlatform,
        Self::SecretsUsedInArgOrEnv,
        Self::InvalidDefaultArgInFrom,
        Self::FromPlatformFlagConstDisallowed,
        Self::CopyIgnoredFile,
        Self::InvalidDefinitionDescription,
        Self::ExposeProtoCasing,
        Self::ExposeInvalidFormat,
    ];

    /// The name, by which it is skipped.
    pub fn name(self) -> &'static str {
        TABLE[self as usize].0
    }

    /// What it asks for.
    pub fn description(self) -> &'static str {
        TABLE[self as usize].1
    }

    /// Whether it counts only where `experimental=` names it.
    pub fn is_experimental(self) -> bool {
        self == Self::InvalidDefinitionDescription
    }
}

/// What a finding belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Check {
    /// The check.
    pub rule: Rule,
    /// Where the instruction begins whose comments can skip it.
    pub instruction: usize,
}

/// Checks by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Selection {
    all: bool,
    /// Names as written: what is no check's name selects nothing.
    names: Vec<String>,
}

impl Selection {
    fn has(&self, rule: Rule) -> bool {
        self.all || self.names.iter().any(|name| name == rule.name())
    }
}

/// What `skip=RULE,…|all;error=BOOL;experimental=RULE,…|all` says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Settings {
    skip: Selection,
    experimental: Selection,
    error: bool,
}

impl Settings {
    /// Reads the options of a `# check=` line that stand at `at` in the file, or those of a build argument, which have no
    /// place. What may not be meant is added to `warnings`.
    ///
    /// As with BuildKit, options and names are taken as they are written, capitals included, the later of two alike
    /// counts, and a name that no check has is no error: another version may have such a check.
    pub(super) fn parse(text: &str, at: Option<usize>, warnings: &mut Vec<Diagnostic>) -> Result<Self, Diagnostic> {
        let mut this = Self::default();
        if text.trim().is_empty() {
            return Ok(this);
        }
        let place = |part: &str, error: Diagnostic| match at {
            // `part` is a part of `text`: their distance is its offset.
            Some(at) => {
                let start = at + (part.as_ptr() as usize - text.as_ptr() as usize);
                error.at(Span::new(start, start + part.len()))
            }
            None => error,
        };
        for option in text.split(';') {
            let Some((key, value)) = option.split_once('=') else {
                let error = Diagnostic::new(format!("'{}' is not an option of the checks", option.trim()));
                return Err(place(option.trim(), error).help("write skip=NAME,…;error=true;experimental=NAME,…"));
            };
            let (key, value) = (key.trim(), value.trim());
            let mut select = |selection: &mut Selection| match value {
                "all" => selection.all = true,
                names => {
                    let names = names.split(',').map(str::trim);
                    names.clone().for_each(|name| warnings.extend(unknown(name).map(|warning| place(name, warning))));
                    selection.names = names.map(str::to_owned).collect();
                }
            };
            match key {
                "skip" => select(&mut this.skip),
                "experimental" => select(&mut this.experimental),
                "error" => match value {
                    "1" | "t" | "T" | "true" | "TRUE" | "True" => this.error = true,
                    "0" | "f" | "F" | "false" | "FALSE" | "False" => this.error = false,
                    _ => {
                        let error = Diagnostic::new(format!("error={value} is neither true nor false"));
                        return Err(place(value, error).help("write error=true or error=false"));
                    }
                },
                _ => {
                    let options = ["skip", "error", "experimental"];
                    let error = place(key, Diagnostic::new(format!("the checks have no option '{key}'")));
                    return Err(match closest(key, options) {
                        Some(option) => error.help(format!("did you mean {option}?")),
                        None => error.help("the options are skip, error and experimental"),
                    });
                }
            }
        }
        Ok(this)
    }
}

/// The warning for a name that no check has.
fn unknown(name: &str) -> Option<Diagnostic> {
    if Rule::ALL.iter().any(|rule| rule.name() == name) {
        return None;
    }
    if name.is_empty() {
        let warning = Diagnostic::warning("a name of a check is missing");
        return Some(warning.help("write no space between the names: what follows one is not read"));
    }
    let warning = Diagnostic::warning(format!("there is no check '{name}'"));
    Some(match closest(name, Rule::ALL.map(Rule::name)) {
        Some(name) => warning.help(format!("did you mean {name}?")),
        None if name.eq_ignore_ascii_case("all") => warning.help("all is written in small letters and stands alone"),
        None => warning,
    })
}

/// What a Dockerfile says of the checks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checks {
    /// `# check=` at the top. It may be wrong, and a build argument may stand in for it.
    pub(super) directive: Result<Settings, Diagnostic>,
    /// `# check=` above an instruction, by where the instruction begins.
    pub(super) comments: BTreeMap<usize, Settings>,
}

impl Default for Checks {
    fn default() -> Self {
        Self { directive: Ok(Settings::default()), comments: BTreeMap::new() }
    }
}

impl Checks {
    /// What holds in a build: `argument`, the value of BUILDKIT_DOCKERFILE_CHECK, in place of the directive. Comments
    /// above instructions hold with either.
    pub fn policy(&self, argument: Option<&str>) -> Result<Policy<'_>, Diagnostic> {
        let mut warnings = Vec::new();
        let settings = match argument {
            Some(text) => Settings::parse(text, None, &mut warnings)?,
            None => self.directive.clone()?,
        };
        Ok(Policy { settings, comments: &self.comments, warnings })
    }
}

/// Which findings count.
#[derive(Debug, Clone)]
pub struct Policy<'c> {
    settings: Settings,
    comments: &'c BTreeMap<usize, Settings>,
    /// What may not be meant in the build argument.
    pub warnings: Vec<Diagnostic>,
}

impl Policy<'_> {
    /// Whether a finding counts. Other messages always do.
    pub fn admits(&self, diagnostic: &Diagnostic) -> bool {
        let Some(Check { rule, instruction }) = diagnostic.check else { return true };
        let mut settings = [Some(&self.settings), self.comments.get(&instruction)].into_iter().flatten();
        match rule.is_experimental() {
            true => settings.any(|settings| settings.experimental.has(rule)),
            false => !settings.any(|settings| settings.skip.has(rule)),
        }
    }

    /// Whether findings end the build. A comment above an instruction cannot say so.
    pub fn findings_are_errors(&self) -> bool {
        self.settings.error
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> Result<Settings, Diagnostic> {
        Settings::parse(text, Some(10), &mut Vec::new())
    }

    /// The checks that count with these options, of three.
    fn counting(text: &str) -> Vec<&'static str> {
        let checks = Checks { directive: settings(text), comments: BTreeMap::new() };
        let policy = checks.policy(None).unwrap();
        let rules = [Rule::JsonArgsRecommended, Rule::MaintainerDeprecated, Rule::InvalidDefinitionDescription];
        let finding = |rule| Diagnostic::finding(rule, Span::new(0, 1), "x");
        rules.into_iter().filter(|&rule| policy.admits(&finding(rule))).map(Rule::name).collect()
    }

    #[test]
    fn every_check_has_its_own_row() {
        let page = include_str!("../../../docs/dockerfile/8-checks.md");
        for (index, rule) in Rule::ALL.into_iter().enumerate() {
            assert!(page.contains(&format!("\n- `{}`", rule.name())), "{rule:?} is not on the page");
            assert_eq!(rule as usize, index);
            assert_eq!(rule.name().to_lowercase(), format!("{rule:?}").to_lowercase());
            assert!(!rule.description().is_empty() && !rule.description().ends_with('.'));
        }
    }

    #[test]
    fn checks_are_skipped_by_name_or_all() {
        let both = ["JSONArgsRecommended", "MaintainerDeprecated"];
        let cases: [(&str, &[&str]); 9] = [
            ("", &both),
            ("skip=JSONArgsRecommended", &both[1..]),
            (" skip = JSONArgsRecommended , MaintainerDeprecated ", &[]),
            ("skip=all", &[]),
            ("skip=ALL", &both),
            ("skip=jsonargsrecommended", &both),
            ("skip=Nonsense,JSONArgsRecommended", &both[1..]),
            ("skip=JSONArgsRecommended;skip=MaintainerDeprecated", &both[..1]),
            ("error=true", &both),
        ];
        for (text, expected) in cases {
            assert_eq!(counting(text), expected, "{text}");
        }
    }

    #[test]
    fn experimental_checks_count_where_they_are_named() {
        let cases: [(&str, &[&str]); 3] = [
            ("skip=all;experimental=all", &["InvalidDefinitionDescription"]),
            ("experimental=InvalidDefinitionDescription;skip=all", &["InvalidDefinitionDescription"]),
            ("skip=all,InvalidDefinitionDescription;experimental=x", &["JSONArgsRecommended", "MaintainerDeprecated"]),
        ];
        for (text, expected) in cases {
            assert_eq!(counting(text), expected, "{text}");
        }
    }

    #[test]
    fn error_is_one_of_gos_truth_values() {
        for (text, expected) in
            [("error=true", true), ("error=T", true), ("error=1;skip=all", true), ("error=F", false)]
        {
            assert_eq!(settings(text).unwrap().error, expected, "{text}");
        }
    }

    #[test]
    fn wrong_options_are_refused_at_their_place() {
        let cases = [
            ("all", "'all' is not an option of the checks", 10..13),
            ("skip=all;", "'' is not an option of the checks", 19..19),
            ("skip=all; Skip=x", "the checks have no option 'Skip'", 20..24),
            ("error=yes", "error=yes is neither true nor false", 16..19),
            ("error=", "error= is neither true nor false", 16..16),
        ];
        for (text, message, range) in cases {
            let error = settings(text).unwrap_err();
            assert_eq!((error.message.as_str(), error.span), (message, Some(range.into())), "{text}");
            assert!(error.help.is_some(), "{text}");
        }
        assert_eq!(settings("skp=all").unwrap_err().help.as_deref(), Some("did you mean skip?"));
        assert_eq!(Settings::parse("x", None, &mut Vec::new()).unwrap_err().span, None);
    }

    #[test]
    fn a_name_that_no_check_has_is_a_warning() {
        let mut warnings = Vec::new();
        Settings::parse("skip=UndefinedVars,all,,Zzz", Some(0), &mut warnings).unwrap();
        let shown: Vec<_> =
            warnings.iter().map(|warning| (warning.message.as_str(), warning.help.as_deref())).collect();
        let spaces = "write no space between the names: what follows one is not read";
        assert_eq!(
            shown,
            [
                ("there is no check 'UndefinedVars'", Some("did you mean UndefinedVar?")),
                ("there is no check 'all'", Some("all is written in small letters and stands alone")),
                ("a name of a check is missing", Some(spaces)),
                ("there is no check 'Zzz'", None),
            ]
        );
        assert_eq!(warnings[0].span, Some(Span::new(5, 18)));
    }

    #[test]
    fn a_build_argument_stands_in_for_the_directive_and_comments_stay() {
        let finding = |instruction| Diagnostic::finding(Rule::UndefinedVar, Span::new(instruction, 9), "x");
        let comments = BTreeMap::from([(5, settings("skip=UndefinedVar;error=true").unwrap())]);
        let checks = Checks { directive: settings("skip=all;error=true"), comments };
        let policy = checks.policy(None).unwrap();
        assert!(!policy.admits(&finding(0)) && policy.findings_are_errors());
        for argument in ["", "skip=JSONArgsRecommended"] {
            let policy = checks.policy(Some(argument)).unwrap();
            assert!(policy.admits(&finding(0)) && !policy.admits(&finding(5)) && !policy.findings_are_errors());
        }
        let wrong = Checks { directive: settings("x"), ..checks };
        assert!(wrong.policy(None).is_err());
        assert!(wrong.policy(Some("skip=all")).is_ok());
    }
}
