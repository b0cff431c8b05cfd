//! The build checks, through the executable.

use yadokari_tests::{Context, Live, Output, Result, Variant};

use crate::site::{self, printed};

/// The exit code of a Dockerfile that is wrong, or in which a check found something.
const DATA: i32 = 65;

const DOCKERFILE: &str = "FROM scratch AS Base\nENV a=$undefined\nCMD x\n";

fn live(context: &Context) -> Result<Live> {
    site::container(Variant::Docker, context.path())?.start()
}

/// Runs the executor with these words.
fn execute(live: &mut Live, words: &str) -> Result<Output> {
    let words = ["/kaniko/executor"].into_iter().chain(words.split(' '));
    live.exec(words.map(str::to_owned).collect::<Vec<_>>())
}

#[test]
fn a_look_tells_findings_and_errors_and_builds_nothing() -> Result<()> {
    let context = Context::new()?
        .file("Dockerfile", DOCKERFILE)?
        .file("Wrong", format!("{DOCKERFILE}STOPSIGNAL SIGTREM\nCOPY nowhere /\nFROM base\n"))?
        .file("Good", "FROM scratch\nCMD [\"x\"]\n")?;
    let mut live = live(&context)?;

    let output = execute(&mut live, "check --dockerfile Dockerfile")?;
    assert_eq!(output.code(), DATA, "{output}");
    let says =
        ["warning[UndefinedVar]", "Dockerfile:2:7", "^^^^^^^^^^", "3 findings (StageNameCasing 1, UndefinedVar 1,"];
    for words in says {
        assert!(output.stdout.contains(words), "no '{words}' in {output}");
    }

    let output = execute(&mut live, "check --dockerfile Wrong --format json")?;
    assert_eq!(output.code(), DATA, "{output}");
    let report: serde_json::Value = serde_json::from_str(&output.stdout).unwrap();
    let errors: Vec<_> = report["errors"].as_array().unwrap().iter().map(|error| error["line"].as_u64()).collect();
    assert_eq!(errors, [Some(4), Some(5)], "{output}");
    let first = &report["warnings"][0];
    assert_eq!((first["rule"].as_str(), first["column"].as_u64()), (Some("StageNameCasing"), Some(17)), "{output}");

    let output = execute(&mut live, "check --dockerfile Good")?;
    assert_eq!((output.code(), output.stdout.trim_end().lines().count()), (0, 1), "{output}");
    assert_eq!(live.left_behind("/kaniko/work")?, "");
    Ok(())
}

#[test]
fn findings_fail_a_build_where_the_file_says_so() -> Result<()> {
    let context = Context::new()?
        .file("Dockerfile", DOCKERFILE)?
        .file("Strict", format!("# check=error=true\n{DOCKERFILE}"))?
        .file("Skipped", format!("# check=error=true;skip=all\n{DOCKERFILE}"))?
        .file("Wrong", "FROM scratch\nCOPY ${nmae}where /\n")?;
    let mut live = live(&context)?;
    let build = "build --no-push --dockerfile";
    let strict = "--build-arg BUILDKIT_DOCKERFILE_CHECK=error=true";
    for words in [format!("{build} Strict"), format!("{build} Dockerfile {strict}")] {
        let output = execute(&mut live, &words)?;
        assert_eq!(output.code(), DATA, "{output}");
        let text = printed(&output);
        for words in ["warning[UndefinedVar]", "warning[JSONArgsRecommended]", "error=true is set: StageNameCasing, "] {
            assert!(text.contains(words), "no '{words}' in {output}");
        }
        assert!(!text.contains("\nbuilt sha256:"), "{output}");
    }
    // What is found is told where an error ends the build, too.
    let output = execute(&mut live, &format!("{build} Wrong"))?;
    let text = printed(&output);
    let (finding, error) =
        (text.find("warning[UndefinedVar]"), text.find("error: 'where' is not in the build context"));
    assert!(output.code() == DATA && finding.is_some() && finding < error, "{output}");
    for name in ["Dockerfile", "Skipped"] {
        let output = execute(&mut live, &format!("{build} {name}"))?;
        assert_eq!(output.code(), 0, "{output}");
        assert_eq!(printed(&output).contains("warning["), name == "Dockerfile", "{output}");
    }
    assert_eq!(live.left_behind("/kaniko/work")?, "");
    Ok(())
}
