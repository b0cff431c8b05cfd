//! The build checks of the plan: what is found, where, and in which stages.

use super::*;
use crate::dockerfile::Rule;

/// The findings of a plan: each line, what stands there, and the check's name.
fn found(bench: &Bench, text: &str) -> Vec<(usize, String, &'static str)> {
    shown(bench.plan(text).warnings, text)
}

fn shown(warnings: Vec<Diagnostic>, text: &str) -> Vec<(usize, String, &'static str)> {
    let source = Source::new("Dockerfile", text);
    let finding = |warning: Diagnostic| {
        let (check, span) = (warning.check?, warning.span.unwrap());
        Some((source.line(span.start), text[span.start..span.end].to_owned(), check.rule.name()))
    };
    warnings.into_iter().filter_map(finding).collect()
}

/// The lines and texts at which `rule` finds something in a Dockerfile.
fn places(bench: &Bench, rule: Rule, text: &str) -> Vec<(usize, String)> {
    let found = found(bench, text).into_iter().filter(|(_, _, name)| *name == rule.name());
    found.map(|(line, text, _)| (line, text)).collect()
}

fn at(places: &[(usize, &str)]) -> Vec<(usize, String)> {
    places.iter().map(|(line, text)| (*line, (*text).to_owned())).collect()
}

/// Compares what `rule` finds in Dockerfiles with lines and texts.
fn check(rule: Rule, cases: &[(&str, &[(usize, &str)])]) {
    for (text, expected) in cases {
        assert_eq!(places(&Bench::new(), rule, text), at(expected), "{text}");
    }
}

/// The advice of all findings of `rule`.
fn helps(bench: &Bench, rule: Rule, text: &str) -> Vec<String> {
    let warnings = bench.plan(text).warnings.into_iter();
    let findings = warnings.filter(|warning| warning.check.is_some_and(|check| check.rule == rule));
    findings.map(|finding| finding.help.unwrap_or_default()).collect()
}

#[test]
fn variables_that_nothing_defines_are_found() {
    check(
        Rule::UndefinedVar,
        &[
            ("FROM scratch\nENV a=$b b=1 c=${b}\nENV d=$b\n", &[(2, "$b"), (2, "${b}")]),
            ("FROM scratch\nENV PATH=/x:$PATH L=/x:$L\n", &[(2, "$L")]),
            ("FROM scratch\nARG a\nARG b=$x c=$a\nENV d=$a\n", &[(3, "$x")]),
            (
                "FROM scratch\nWORKDIR /$a\nUSER x$b\nVOLUME /$c\nSTOPSIGNAL 9$d\nLABEL e=$e $f=1\n",
                &[(2, "$a"), (3, "$b"), (4, "$c"), (5, "$d"), (6, "$e"), (6, "$f")],
            ),
            ("FROM scratch\nWORKDIR /${a:-x}/${b+x}/${c#x}/x\n", &[(2, "${a"), (2, "${b"), (2, "${c")]),
            ("FROM scratch\nWORKDIR /$a$a/$a\n", &[(2, "$a")]),
            // The shell's variables are its own, and so are the literal ones.
            ("FROM scratch\nRUN $a\nCMD $a\nENTRYPOINT [\"$a\"]\nHEALTHCHECK CMD $a\nENV b='$a' c=\\$a\n", &[]),
            ("FROM scratch\nRUN --mount=type=cache,target=/x/$c true\n", &[(2, "$c")]),
            ("FROM scratch\nEXPOSE 80$p\nONBUILD WORKDIR /$x\n", &[]),
            ("ARG a=1\nFROM scratch\nENV b=$a c=$TARGETARCH\n", &[(3, "$a"), (3, "$TARGETARCH")]),
            ("FROM scratch AS a\nARG x=1\nFROM a\nENV y=$x\n", &[]),
            ("FROM scratch\nENV a=\"\\\n$b\"\n", &[(2, "\"\\\n$b\"")]),
        ],
    );
    let bench = Bench::new().file("f", "").image("base", r#"{"Env":["V=1"]}"#);
    let text = "FROM base\nCOPY --chown=1$a f $b/f <<E $V/\n$c\nE\n";
    let bench = bench.file("x/f", "");
    let text = text.replace("$b/f", "${b}x/f");
    assert_eq!(places(&bench, Rule::UndefinedVar, &text), at(&[(2, "$a"), (2, "${b}"), (2, "<<E")]));
}

#[test]
fn many_findings_take_little_time() {
    let names: Vec<String> = (0..30_000).map(|number| format!("$v{number}")).collect();
    let lines: Vec<String> = names.chunks(1_000).map(|names| names.concat()).collect();
    let text = format!("FROM scratch\nLABEL a={}\n", lines.join("\\\n"));
    assert_eq!(Bench::new().plan(&text).warnings.len(), names.len());
}

#[test]
fn an_undefined_variable_is_shown_with_the_one_that_was_meant() {
    let text = "FROM scratch\nENV VERSION=1\nWORKDIR /a/$VERSOIN\n";
    let warnings = Bench::new().plan(text).warnings;
    let expected = "\
warning[UndefinedVar]: nothing defines the variable '$VERSOIN'
 --> Dockerfile:3:12
  |
3 | WORKDIR /a/$VERSOIN
  |            ^^^^^^^^
  |
  = help: did you mean $VERSION?";
    assert_eq!(warnings[0].render(&Source::new("Dockerfile", text), false), expected);
}

#[test]
fn arguments_of_from_are_declared_before_it() {
    check(
        Rule::UndefinedArgInFrom,
        &[
            ("ARG base=scratch\nFROM ${bsae:-scratch}\n", &[(2, "${bsae")]),
            ("ARG none\nFROM ${none:-scratch}\n", &[]),
            ("FROM ${TARGETOS:+scratch} AS a\nFROM --platform=${p:-linux/amd64} scratch\n", &[(2, "${p")]),
            ("FROM scratch AS a\nARG x=1\nFROM ${x:-scratch}\n", &[(3, "${x")]),
        ],
    );
    let text = "ARG base=scratch\nFROM ${bsae:-scratch}\nFROM ${zzz:-scratch}\n";
    let helps = helps(&Bench::new(), Rule::UndefinedArgInFrom, text);
    assert_eq!(helps, ["did you mean $base?", "write ARG zzz before the first FROM"]);
}

#[test]
fn from_names_an_image_without_build_arguments() {
    let text = "ARG tag\nARG name\nFROM busybox:${tag}\nFROM $name\nFROM a:${tag:-1}\n";
    let bench = ["busybox:1", "scratch", "a:1"].iter().fold(Bench::new(), |bench, name| bench.image(name, "{}"));
    let bench = bench.build_arg("tag", "1").build_arg("name", "scratch");
    let expected = at(&[(3, "busybox:${tag}"), (4, "$name")]);
    assert_eq!(places(&bench, Rule::InvalidDefaultArgInFrom, text), expected);
    check(
        Rule::InvalidDefaultArgInFrom,
        &[("ARG a=scratch\nFROM $a AS b\nFROM b\nFROM oci:/dir:tag AS c\nFROM b", &[])],
    );
}

#[test]
fn a_from_without_a_name_is_an_error_in_every_stage() {
    let error = Bench::new().error("FROM scratch AS a\nFROM $nothing\nFROM scratch\n");
    assert!(error.contains("the base name is empty") && error.contains("Dockerfile:2:6"), "{error}");
}

#[test]
fn a_platform_that_from_has_anyway_is_found() {
    let text = "FROM --platform=$TARGETPLATFORM scratch AS a\nFROM --platform=${TARGETPLATFORM:-x} scratch AS b\nFROM --platform=$BUILDPLATFORM scratch AS c\nFROM --platform=$TARGETOS/$TARGETARCH scratch\n";
    let expected: &[(usize, &str)] = &[(1, "$TARGETPLATFORM"), (2, "${TARGETPLATFORM:-x}")];
    check(Rule::RedundantTargetPlatform, &[(text, expected)]);
}

#[test]
fn a_platform_that_is_written_out_is_found() {
    let platform = "FROM --platform=linux/amd64 scratch";
    let cases: [(&str, &[(usize, &str)]); 3] = [
        (&format!("{platform} AS a\n{platform}\n"), &[(1, "linux/amd64"), (2, "linux/amd64")]),
        (&format!("{platform} AS build-amd64\n{platform} AS linux-x\n"), &[]),
        ("ARG p=linux/amd64\nFROM --platform=$p scratch\n", &[]),
    ];
    check(Rule::FromPlatformFlagConstDisallowed, &cases);
}

#[test]
fn a_base_image_for_another_platform_is_found() {
    let mut bench = Bench::new().image("arm", "{}").image("amd", "{}");
    bench.known.images.get_mut("arm").unwrap().config.architecture = "arm64".into();
    let text = "FROM amd AS a\nFROM arm\nCOPY --from=a / /\n";
    assert_eq!(places(&bench, Rule::InvalidBaseImagePlatform, text), at(&[(2, "arm")]));
}

#[test]
fn the_first_workdir_is_absolute() {
    check(
        Rule::WorkdirRelativePath,
        &[
            ("FROM scratch\nWORKDIR a\nWORKDIR b\n", &[(2, "a")]),
            ("FROM scratch\nWORKDIR /a\nWORKDIR b\n", &[]),
            ("FROM scratch AS a\nWORKDIR /a\nFROM a\nWORKDIR b\n", &[]),
            ("FROM scratch AS a\nWORKDIR a\nFROM a\nWORKDIR b\n", &[(2, "a")]),
            ("FROM scratch\nARG d=x\nWORKDIR $d\n", &[(3, "$d")]),
            ("FROM scratch\nARG d=/x\nWORKDIR $d\n", &[]),
        ],
    );
    let bench = Bench::new().image("base", r#"{"WorkingDir":"/w"}"#);
    assert_eq!(places(&bench, Rule::WorkdirRelativePath, "FROM base\nWORKDIR a\n"), at(&[(2, "a")]));
}

#[test]
fn a_command_that_a_later_one_replaces_is_found() {
    let cases: [(&str, &[(usize, &str)]); 4] = [
        ("FROM scratch\nCMD [\"a\"]\nCMD [\"b\"]\nCMD [\"c\"]\n", &[(2, "CMD [\"a\"]"), (3, "CMD [\"b\"]")]),
        ("FROM scratch\nENTRYPOINT [\"a\"]\nENTRYPOINT []\n", &[(2, "ENTRYPOINT [\"a\"]")]),
        ("FROM scratch\nHEALTHCHECK NONE\nHEALTHCHECK CMD a\n", &[(2, "HEALTHCHECK NONE")]),
        ("FROM scratch AS a\nCMD [\"a\"]\nFROM a\nCMD [\"b\"]\n", &[]),
    ];
    check(Rule::MultipleInstructionsDisallowed, &cases);
}

#[test]
fn the_old_form_of_env_and_label_is_found() {
    let text = "FROM scratch\nENV a b\nLABEL c d e\nENV f=g\nLABEL h=i\n";
    check(Rule::LegacyKeyValueFormat, &[(text, &[(2, "a"), (3, "c")])]);
}

#[test]
fn names_of_secrets_are_found() {
    let text = "ARG MY_TOKEN\nFROM scratch\nARG API_KEY apikey=1 AUTH_x mytoken\nENV GITHUB_TOKEN=1 PUBLIC_KEY=2 KEY_VERSION=3 PASSWORD_FILE=/x\nENV CREDENTIALS_X=1 passwd=1 monkey=1 KEYS=1\nLABEL key=1\n";
    let expected: &[(usize, &str)] =
        &[(3, "API_KEY"), (3, "apikey"), (3, "AUTH_x"), (4, "GITHUB_TOKEN"), (5, "CREDENTIALS_X"), (5, "passwd")];
    check(Rule::SecretsUsedInArgOrEnv, &[(text, expected)]);
}

#[test]
fn commands_as_text_are_found() {
    let cases: [(&str, &[(usize, &str)]); 4] = [
        ("FROM scratch\nCMD a\nENTRYPOINT ['b']\nHEALTHCHECK CMD c\nRUN d\n", &[(2, "CMD a"), (3, "ENTRYPOINT ['b']")]),
        ("FROM scratch\nCMD [\"a\"]\nENTRYPOINT []\n", &[]),
        ("FROM scratch AS a\nSHELL [\"/bin/bash\", \"-c\"]\nCMD a\nFROM a\nCMD b\n", &[]),
        ("FROM scratch\nCMD\n", &[(2, "CMD")]),
    ];
    check(Rule::JsonArgsRecommended, &cases);
    let bench = Bench::new().image("base", r#"{"Shell":["/bin/bash","-c"]}"#);
    assert_eq!(places(&bench, Rule::JsonArgsRecommended, "FROM base\nCMD a\n"), []);
}

#[test]
fn protocols_are_in_small_letters() {
    let text = "FROM scratch\nARG p=81/SCTP\nEXPOSE 80/TCP 53/Udp 443/tcp 8080 $p\n";
    check(Rule::ExposeProtoCasing, &[(text, &[(3, "80/TCP"), (3, "53/Udp"), (3, "$p")])]);
}

#[test]
fn ports_of_the_host_are_found() {
    let text = "FROM scratch\nEXPOSE 80:80 127.0.0.1:81:81 [::1]::82 :83 ::84 85\n";
    check(Rule::ExposeInvalidFormat, &[(text, &[(2, "80:80"), (2, "127.0.0.1:81:81"), (2, "[::1]::82")])]);
}

#[test]
fn copied_files_that_the_ignore_file_leaves_out_are_found() {
    let bench = Bench::new().file(".dockerignore", "a\nd\ne\n!d/keep\n");
    let bench = ["a", "b", "d/keep", "e/x"].iter().fold(bench, |bench, name| bench.file(name, ""));
    let text = "FROM scratch AS one\nCOPY b /\nFROM scratch\nCOPY a b /\nADD ./e/x /\nCOPY d /\nCOPY . /\nCOPY --from=one a /\nCOPY ${x}a /\n";
    let checked = bench.check(text);
    let found: Vec<_> =
        shown(checked.warnings, text).into_iter().filter(|found| found.2 == "CopyIgnoredFile").collect();
    let found: Vec<_> = found.into_iter().map(|(line, text, _)| (line, text)).collect();
    assert_eq!(found, at(&[(4, "a"), (5, "./e/x"), (9, "${x}a")]));
    // A build ends there; a look goes on.
    assert_eq!(checked.errors.len(), 3);
    assert!(checked.errors[0].to_string().contains("'a' is not in the build context"));
}

#[test]
fn triggers_are_found_at_the_from_that_brings_them() {
    let bench = Bench::new().image("base", r#"{"OnBuild":["CMD a","ENV b $c","WORKDIR d"]}"#);
    let names = |text| found(&bench, text).into_iter().map(|(line, _, name)| (line, name)).collect::<Vec<_>>();
    let rules = ["JSONArgsRecommended", "UndefinedVar", "LegacyKeyValueFormat", "WorkdirRelativePath"];
    assert_eq!(names("\nFROM base\n"), rules.map(|rule| (2, rule)));
    assert_eq!(names("FROM base\nCMD [\"x\"]\n").last(), Some(&(1, "MultipleInstructionsDisallowed")));
    let finding = &bench.plan("FROM base\n").warnings[0];
    assert_eq!(finding.label.as_deref(), Some("by its trigger ONBUILD CMD a"));
    let own = "FROM scratch AS a\nONBUILD CMD $x\nFROM a\n";
    assert_eq!(names(own), [(3, "JSONArgsRecommended")]);
}

/// A stage with a finding of every kind that the plan makes, and one of the text's.
const UNNEEDED: &str = "FROM scratch AS Unneeded\nCMD x\nENV a b\nWORKDIR x\nENV k=$u\nEXPOSE 80:80\nMAINTAINER x\n";

#[test]
fn stages_that_are_not_needed_have_the_findings_of_the_text_alone() {
    let text = format!("{UNNEEDED}FROM --platform=linux/amd64 ${{v:-scratch}}\n");
    let names: Vec<_> = found(&Bench::new(), &text).into_iter().map(|(line, _, name)| (line, name)).collect();
    let expected = [
        (1, "StageNameCasing"),
        (7, "MaintainerDeprecated"),
        (8, "FromPlatformFlagConstDisallowed"),
        (8, "UndefinedArgInFrom"),
        (8, "InvalidDefaultArgInFrom"),
    ];
    assert_eq!(names, expected[..4]);
    // FROM lines are looked at wherever they stand.
    let text = format!("FROM --platform=linux/amd64 ${{v:-scratch}}\n{UNNEEDED}FROM scratch\n");
    assert_eq!(found(&Bench::new(), &text).len(), 4);
}

#[test]
fn a_look_takes_all_stages_unless_a_target_is_asked_for() {
    let text = format!("{UNNEEDED}FROM scratch AS last\nCMD y\n");
    let names = |bench: Bench| {
        let found = shown(bench.check(&text).warnings, &text).into_iter();
        found.map(|(line, _, name)| (line, name)).collect::<Vec<_>>()
    };
    let all = names(Bench::new());
    assert_eq!(all.len(), 8);
    assert!(all.contains(&(2, "JSONArgsRecommended")) && all.contains(&(9, "JSONArgsRecommended")));
    let expected = [(1, "StageNameCasing"), (7, "MaintainerDeprecated"), (9, "JSONArgsRecommended")];
    assert_eq!(names(Bench::new().target("last")), expected);
}

#[test]
fn a_look_finds_what_stands_behind_errors_and_beside_missing_images() {
    let text = "FROM scratch AS a\nSTOPSIGNAL x\nCMD y\nFROM missing\nCMD z\nFROM a\nENV a b\n";
    let checked = Bench::new().check(text);
    let lines: Vec<_> = shown(checked.warnings, text).into_iter().map(|(line, _, _)| line).collect();
    assert_eq!(lines, [3, 7]);
    assert_eq!((checked.errors.len(), checked.needs.len()), (1, 1));
}

#[test]
fn warnings_are_sorted_and_told_once() {
    // The second stage meets the error of the first again.
    let text = "FROM scratch AS a\nCOPY --from=b x /\nFROM a AS B\nMAINTAINER x\nFROM scratch\nCMD x\nENV a $b\n";
    let checked = Bench::new().build_arg("X", "1").check(text);
    assert_eq!(checked.errors.len(), 1);
    let lines: Vec<_> = shown(checked.warnings.clone(), text).into_iter().map(|(line, _, _)| line).collect();
    assert_eq!(lines, [3, 4, 6, 7, 7]);
    assert_eq!(checked.warnings.last().unwrap().message, "no ARG takes --build-arg X");
}

#[test]
fn skipped_checks_find_nothing() {
    let bench = Bench::new();
    let text = "FROM scratch AS A\nMAINTAINER x\nCMD x\n";
    let names = |bench: &Bench, head: &str| -> Vec<&'static str> {
        found(bench, &format!("{head}{text}")).into_iter().map(|(_, _, name)| name).collect()
    };
    assert_eq!(names(&bench, "").len(), 3);
    assert_eq!(names(&bench, "# check=skip=StageNameCasing,MaintainerDeprecated\n"), ["JSONArgsRecommended"]);
    assert!(names(&bench, "# check=skip=all\n").is_empty());
    assert!(names(&bench, "# check=skip=all;experimental=all\n# x\n") == ["InvalidDefinitionDescription"]);
    let given = Bench::new().build_arg("BUILDKIT_DOCKERFILE_CHECK", "skip=JSONArgsRecommended, MaintainerDeprecated");
    assert_eq!(names(&given, "# check=skip=all\n"), ["StageNameCasing"]);
    assert!(given.plan(text).warnings.len() == 1, "it is no unused argument");
}

#[test]
fn a_comment_skips_the_checks_of_one_instruction() {
    let text = "\n# check=skip=StageNameCasing,DuplicateStageName\nFROM scratch AS A\n# check=skip=all\n# why\nCMD x\nFROM a AS A\n# check=skip=UndefinedVar\nENV b=$c d=$e\nENV f=$g\n";
    let names: Vec<_> = found(&Bench::new(), text).into_iter().map(|(line, _, name)| (line, name)).collect();
    assert_eq!(names, [(7, "StageNameCasing"), (7, "DuplicateStageName"), (10, "UndefinedVar")]);
}

#[test]
fn wrong_settings_are_errors() {
    let error = Bench::new().error("# check=skipp=all\nFROM scratch\n");
    assert!(error.contains("the checks have no option 'skipp'") && error.contains("Dockerfile:1:9"), "{error}");
    let bench = Bench::new().build_arg("BUILDKIT_DOCKERFILE_CHECK", "error=maybe");
    let error = bench.error("FROM scratch\n");
    assert!(error.starts_with("--build-arg BUILDKIT_DOCKERFILE_CHECK: error=maybe is neither"), "{error}");
    // The build argument stands in for the directive, right or wrong.
    let bench = Bench::new().build_arg("BUILDKIT_DOCKERFILE_CHECK", "skip=all");
    assert!(bench.plan("# check=skipp=all\nFROM scratch\nCMD x\n").warnings.is_empty());
}

#[test]
fn findings_are_errors_where_the_file_or_a_build_argument_says_so() {
    let text = "FROM scratch\nCMD x\n";
    let said = "# check=error=true\nFROM scratch\nCMD x\n";
    assert!(!Bench::new().plan(text).findings_are_errors);
    assert!(Bench::new().plan(said).findings_are_errors);
    let bench = |value| Bench::new().build_arg("BUILDKIT_DOCKERFILE_CHECK", value);
    assert!(bench("error=true").plan(text).findings_are_errors);
    assert!(!bench("").plan(said).findings_are_errors);
}

#[test]
fn a_default_of_source_date_epoch_is_the_time() {
    let epoch = |bench: &Bench, text| bench.plan(text).epoch;
    let text = "ARG SOURCE_DATE_EPOCH=1000\nFROM scratch\nARG SOURCE_DATE_EPOCH\nENV t=$SOURCE_DATE_EPOCH\n";
    assert_eq!(epoch(&Bench::new(), text), Some(1000));
    assert!(Bench::new().plan(text).config().env.contains(&"t=1000".to_owned()));
    assert_eq!(epoch(&Bench::new(), "ARG SOURCE_DATE_EPOCH=\nFROM scratch\n"), None);
    assert_eq!(epoch(&Bench::new(), "FROM scratch\nARG SOURCE_DATE_EPOCH=1000\n"), None);
    // What the command line or the environment says wins.
    let mut bench = Bench::new();
    bench.options.epoch = Some(7);
    assert_eq!(epoch(&bench, text), Some(7));
    assert!(bench.plan(text).config().env.contains(&"t=7".to_owned()));
    assert_eq!(epoch(&Bench::new().build_arg("SOURCE_DATE_EPOCH", ""), text), None);
    let error = Bench::new().error("ARG SOURCE_DATE_EPOCH=context\nFROM scratch\n");
    assert!(
        error.contains("SOURCE_DATE_EPOCH=context is not a number") && error.contains("not carried out"),
        "{error}"
    );
}
