//! The Dockerfile language as BuildKit and Buildah of today speak it: every case of `fixtures/dialect` and some generated
//! ones are built by them and by us, and the images compared in all that an image is.
//!
//! BuildKit is the authority. Where ours differs, or Buildah does, a table in [`known`] says so with a reason; an entry of
//! the table that nothing matches any more fails, too, unless it is one of chance.

mod generate;
mod known;
mod results;

use std::io::Write as _;

use yadokari_tests::dialect::Difference;
use yadokari_tests::oracle::Builder;

use known::{KNOWN, PENDING};
use results::{Outcome, Results, results};

/// Compares the cases of a file. What was skipped says so where a test's own output is not seen.
fn compare(file: &str) {
    let Some(results) = obtained(file) else { return };
    let outcomes: Vec<_> = results.outcomes.iter().filter(|outcome| outcome.case.place.starts_with(file)).collect();
    let wrong: Vec<String> = outcomes.iter().filter_map(|outcome| judge(outcome)).collect();
    assert!(results.is_filtered || !outcomes.is_empty(), "no cases in {file}");
    assert!(wrong.is_empty(), "{} of {} cases\n\n{}", wrong.len(), outcomes.len(), wrong.join("\n\n"));
}

/// The results, or a message on standard error, where nothing captures it.
fn obtained(what: &str) -> Option<&'static Results> {
    match results() {
        Ok(results) => Some(results),
        Err(reason) => {
            let required = std::env::var("YADOKARI_ORACLE").is_ok_and(|value| value == "required");
            assert!(!required, "nothing to compare {what} with: {reason}");
            let message = format!("SKIPPED differential tests, {what}: {reason}\n");
            std::io::stderr().write_all(message.as_bytes()).unwrap();
            None
        }
    }
}

/// What is wrong with a case.
fn judge(outcome: &Outcome) -> Option<String> {
    let case = &outcome.case;
    let mut wrong = Vec::new();
    let buildkit = &outcome.theirs[&Builder::BuildKit];
    match &case.refused {
        None if buildkit.snapshot.is_refused() && !generate::is_generated(case) => {
            wrong.push(format!("BuildKit does not build it:\n{}", buildkit.log))
        }
        Some(_) if !buildkit.snapshot.is_refused() => wrong.push("BuildKit builds it".to_owned()),
        Some(words) if !buildkit.log.contains(words) => {
            wrong.push(format!("BuildKit refuses it in other words:\n{}", buildkit.log));
        }
        _ => {}
    }
    if outcome.log.contains("panicked") || (outcome.ours.is_refused() && outcome.code == 101) {
        wrong.push(format!("we panicked:\n{}", outcome.log));
    }
    let pending = PENDING.iter().find(|(cases, _)| known::is_like(cases, &case.name));
    let mut found = false;
    for &builder in Builder::of(case) {
        for difference in outcome.differences(builder) {
            found |= builder == Builder::BuildKit;
            if pending.is_none() && known::reason(builder, &case.name, &difference).is_none() {
                wrong.push(told(builder, &difference, outcome));
            }
        }
    }
    if let Some((_, what)) = pending.filter(|_| !found) {
        wrong.push(format!("it is pending ({what}), but as in BuildKit: take it off the list"));
    }
    let text = case.text().lines().map(|line| line.chars().take(200).collect::<String>() + "\n").collect::<String>();
    (!wrong.is_empty()).then(|| format!("== {} ({})\n{text}{}", case.name, case.place, wrong.join("\n")))
}

/// A difference in a line, with what we said where we refused.
fn told(builder: Builder, difference: &Difference, outcome: &Outcome) -> String {
    let short = |text: &str| text.chars().take(400).collect::<String>();
    let show = |side: &Option<String>| side.as_ref().map_or("nothing".to_owned(), |text| short(text));
    let mut text =
        format!("{}: ours {}, {builder:?}'s {}", difference.field, show(&difference.ours), show(&difference.theirs));
    if difference.field == "outcome" {
        text += &format!("\n{}\n{}", outcome.log, outcome.theirs[&builder].log);
    }
    text
}

#[test]
fn lexing_is_buildkits() {
    compare("1-lexing.cases");
}

#[test]
fn variables_are_buildkits() {
    compare("2-variables.cases");
}

#[test]
fn stages_are_buildkits() {
    compare("3-stages.cases");
}

#[test]
fn run_is_buildkits() {
    compare("4-run.cases");
}

#[test]
fn copy_is_buildkits() {
    compare("5-copy.cases");
}

#[test]
fn add_is_buildkits() {
    compare("5-add.cases");
}

#[test]
fn metadata_is_buildkits() {
    compare("6-metadata.cases");
}

#[test]
fn the_ignore_file_is_buildkits() {
    compare("7-ignore-file.cases");
}

#[test]
fn images_are_assembled_as_buildkit_does() {
    compare("9-image.cases");
}

#[test]
fn generated_dockerfiles_are_built_as_buildkit_does() {
    compare("generated");
    let Some(results) = obtained("generated") else { return };
    let generated = results.outcomes.iter().filter(|outcome| generate::is_generated(&outcome.case));
    let (refused, built): (Vec<_>, Vec<_>) =
        generated.partition(|outcome| outcome.theirs[&Builder::BuildKit].snapshot.is_refused());
    assert!(results.is_filtered || built.len() > 3 * refused.len(), "{} of {} are refused", refused.len(), built.len());
}

#[test]
fn every_known_difference_is_still_one() {
    let Some(results) = obtained("the table of known differences") else { return };
    if results.is_filtered {
        return;
    }
    let mut unused: Vec<_> = KNOWN.iter().filter(|known| !known.is_by_chance).collect();
    for outcome in &results.outcomes {
        for &builder in Builder::of(&outcome.case) {
            for difference in outcome.differences(builder) {
                unused.retain(|known| !known.matches(builder, &outcome.case.name, &difference));
            }
        }
    }
    let unused: Vec<String> = unused.iter().map(|known| format!("{known:?}")).collect();
    assert!(unused.is_empty(), "nothing differs as these say:\n{}", unused.join("\n"));
    let names = |cases: &str| results.outcomes.iter().any(|outcome| known::is_like(cases, &outcome.case.name));
    let unknown: Vec<_> = PENDING.iter().filter(|(cases, _)| !names(cases)).collect();
    assert!(unknown.is_empty(), "no such cases are pending: {unknown:?}");
}

#[test]
fn there_are_many_cases() {
    let cases = results::cases().unwrap();
    assert!(cases.len() >= 150, "{} cases", cases.len());
    let mut names: Vec<_> = cases.iter().map(|case| &case.name).collect();
    names.sort();
    let twice: Vec<_> = names.windows(2).filter(|pair| pair[0] == pair[1]).collect();
    assert!(twice.is_empty(), "{twice:?}");
}
