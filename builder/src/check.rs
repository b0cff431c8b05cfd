//! Looking at a Dockerfile without building it: it is parsed and planned, and what the build checks and the planner find
//! is the result.
//!
//! Where a build ends at its first error, this goes on: every stage is looked at, and a base image that cannot be had
//! only hides the stages that need it.

use serde::Serialize;

use crate::context::{Context, Contexts};
use crate::dockerfile::{self, Diagnostic, Level, Source};
use crate::plan::Checked;
use crate::progress::Progress;
use crate::sources::Sources;
use crate::{Error, ExitCode, Request};

/// What was found.
#[derive(Debug)]
pub struct Report {
    /// Findings of checks, and other warnings, in the order of the file.
    pub warnings: Vec<Diagnostic>,
    /// What would end a build.
    pub errors: Vec<Error>,
}

/// Looks at the Dockerfile that `request` would build. The sources of base images are those of the build.
pub async fn check(request: &Request, progress: &Progress) -> Report {
    let (file, error) = dockerfile::parse_partly(&request.dockerfile);
    let context = Context::open(&request.context, &request.dockerfile_path);
    let contexts = context.and_then(|context| Contexts::open(context, &request.named_contexts));
    let checked = match (error, contexts) {
        (None, Ok(contexts)) => {
            let sources = Sources::new(request.client.clone()).with_lock(request.lock.clone());
            sources.check(&file, &request.options, &contexts, progress).await
        }
        (Some(error), _) => Checked::stopped(&file, &request.options, error.into()),
        (None, Err(error)) => Checked::stopped(&file, &request.options, error),
    };
    Report { warnings: checked.warnings, errors: checked.errors }
}

/// Fails where the Dockerfile, or a build argument, makes errors of findings, and there are some.
pub fn fail_on_findings(warnings: &[Diagnostic], findings_are_errors: bool) -> Result<(), Error> {
    let rules = rules(warnings);
    if !findings_are_errors || rules.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = rules.into_iter().map(|(name, _)| name).collect();
    Err(Error::Checks { rules: names.join(", ") })
}

/// The checks that found something, each with the number of its findings.
fn rules(warnings: &[Diagnostic]) -> Vec<(&'static str, usize)> {
    let mut counts: Vec<(&'static str, usize)> = Vec::new();
    for name in warnings.iter().filter_map(|warning| warning.check).map(|check| check.rule.name()) {
        match counts.iter_mut().find(|(other, _)| *other == name) {
            Some((_, count)) => *count += 1,
            None => counts.push((name, 1)),
        }
    }
    counts
}

impl Report {
    /// That of the first error; that of a wrong Dockerfile where a check found something; else 0.
    pub fn exit_code(&self) -> u8 {
        match self.errors.first() {
            Some(error) => error.exit_code(),
            None if !rules(&self.warnings).is_empty() => ExitCode::Data as u8,
            None => 0,
        }
    }

    /// For people: as a build shows it, and a line that sums it up.
    pub fn text(&self, source: &Source) -> String {
        let mut parts: Vec<String> = self.warnings.iter().map(|warning| warning.render(source, false)).collect();
        parts.extend(self.errors.iter().map(|error| match error.diagnostic() {
            Some(diagnostic) => diagnostic.render(source, false),
            None => format!("error: {error}"),
        }));
        let rules = rules(&self.warnings);
        let count: usize = rules.iter().map(|(_, count)| count).sum();
        let names: Vec<String> = rules.iter().map(|(name, count)| format!("{name} {count}")).collect();
        let mut summary = match count {
            0 => format!("{}: the checks found nothing", source.name),
            1 => format!("{}: 1 finding ({})", source.name, names.join(", ")),
            _ => format!("{}: {count} findings ({})", source.name, names.join(", ")),
        };
        match self.errors.len() {
            0 => {}
            1 => summary.push_str(", 1 error"),
            errors => summary.push_str(&format!(", {errors} errors")),
        }
        parts.push(summary);
        parts.join("\n\n")
    }

    /// For programs: `{"warnings": […], "errors": […]}`.
    pub fn json(&self, source: &Source) -> String {
        let errors = self.errors.iter().map(|error| {
            let diagnostic = error.diagnostic().unwrap_or_else(|| Diagnostic::new(error.to_string()));
            Message::of(&diagnostic, source)
        });
        let messages = Messages {
            warnings: self.warnings.iter().map(|warning| Message::of(warning, source)).collect(),
            errors: errors.collect(),
        };
        serde_json::to_string_pretty(&messages).expect("the messages are texts and numbers")
    }
}

#[derive(Serialize)]
struct Messages {
    warnings: Vec<Message>,
    errors: Vec<Message>,
}

/// A message in JSON. What it does not have is left out. Lines and columns count from 1, columns in characters; the end
/// is the character behind the last.
#[derive(Serialize)]
struct Message {
    level: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'static str>,
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    help: Option<String>,
    file: String,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    place: Option<Place>,
}

#[derive(Serialize)]
struct Place {
    line: usize,
    column: usize,
    end_line: usize,
    end_column: usize,
}

impl Message {
    fn of(diagnostic: &Diagnostic, source: &Source) -> Self {
        let rule = diagnostic.check.map(|check| check.rule);
        let place = diagnostic.span.map(|span| {
            let (line, column) = source.position(span.start);
            let (end_line, end_column) = source.position(span.end);
            Place { line, column, end_line, end_column }
        });
        Self {
            level: if diagnostic.level == Level::Error { "error" } else { "warning" },
            rule: rule.map(|rule| rule.name()),
            description: rule.map(|rule| rule.description()),
            detail: diagnostic.message.clone(),
            help: diagnostic.help.clone(),
            file: source.name.clone(),
            place,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dockerfile::{Rule, Span};

    fn source() -> Source {
        Source::new("Dockerfile", "FROM a\nENV é=$x\n")
    }

    fn report(errors: Vec<Error>) -> Report {
        let finding =
            |rule, at: usize| Diagnostic::finding(rule, Span::new(7, 16), "it is so").at(Span::new(at, at + 2));
        let warnings = vec![
            finding(Rule::UndefinedVar, 14).help("do it"),
            Diagnostic::warning("not a check"),
            finding(Rule::LegacyKeyValueFormat, 11),
            finding(Rule::UndefinedVar, 14),
        ];
        Report { warnings, errors }
    }

    #[test]
    fn a_report_for_people_ends_in_a_summary() {
        let text = report(vec![Error::Dockerfile(Diagnostic::new("no").at(Span::new(0, 4)))]).text(&source());
        assert!(text.starts_with("warning[UndefinedVar]: it is so\n --> Dockerfile:2:7\n"), "{text}");
        assert!(text.contains("\n\nerror: no\n --> Dockerfile:1:1\n"), "{text}");
        let summary = "Dockerfile: 3 findings (UndefinedVar 2, LegacyKeyValueFormat 1), 1 error";
        assert_eq!(text.lines().last(), Some(summary));
        let nothing = Report { warnings: Vec::new(), errors: Vec::new() };
        assert_eq!(nothing.text(&source()), "Dockerfile: the checks found nothing");
    }

    #[test]
    fn a_report_for_programs_is_json() {
        let error = Error::NoSuchTarget { target: "x".into(), hint: String::new() };
        let json: serde_json::Value = serde_json::from_str(&report(vec![error]).json(&source())).unwrap();
        let expected = serde_json::json!({
            "level": "warning", "rule": "UndefinedVar", "description": Rule::UndefinedVar.description(),
            "detail": "it is so", "help": "do it", "file": "Dockerfile",
            "line": 2, "column": 7, "end_line": 2, "end_column": 9,
        });
        assert_eq!(json["warnings"][0], expected);
        assert_eq!(
            json["warnings"][1],
            serde_json::json!({"level": "warning", "detail": "not a check", "file": "Dockerfile"})
        );
        assert!(json["errors"][0]["detail"].as_str().unwrap().starts_with("--target=x"));
    }

    #[test]
    fn findings_and_errors_have_exit_codes_and_other_warnings_have_none() {
        assert_eq!(report(Vec::new()).exit_code(), 65);
        let usage = Error::Usage { flag: "--x", message: String::new() };
        assert_eq!(report(vec![usage]).exit_code(), 2);
        let warnings = vec![Diagnostic::warning("not a check")];
        assert_eq!(Report { warnings, errors: Vec::new() }.exit_code(), 0);
    }

    #[test]
    fn findings_are_errors_where_it_is_said() {
        let warnings = report(Vec::new()).warnings;
        assert!(fail_on_findings(&warnings, false).is_ok());
        assert!(fail_on_findings(&warnings[1..2], true).is_ok());
        let error = fail_on_findings(&warnings, true).unwrap_err();
        assert_eq!(error.exit_code(), 65);
        assert!(error.to_string().ends_with(": UndefinedVar, LegacyKeyValueFormat"), "{error}");
    }
}
