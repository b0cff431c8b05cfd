//! Traps that the cache keys of builders have fallen into: what must count counts, and what must not does not.

mod bases;
mod files;
mod instructions;

use super::keys::{changed, changed_by, marks};
use super::*;

/// The names of the inputs that differ between two plans, for all steps of their targets.
fn differing(before: &Plan, after: &Plan) -> Vec<String> {
    let mut names = Vec::new();
    for (one, other) in before.target().steps.iter().zip(&after.target().steps) {
        let missing = |from: &[Input], input: &Input| !from.contains(input);
        let gone = one.inputs.iter().filter(|input| missing(&other.inputs, input));
        let new = other.inputs.iter().filter(|input| missing(&one.inputs, input));
        names.extend(gone.chain(new).map(|input| input.name.clone()));
    }
    names.sort();
    names.dedup();
    names
}

#[test]
fn a_key_that_changed_is_explained_by_the_names_of_its_inputs() {
    let bench = Bench::new().file("f", "1").file("d/g", "2").image("base", "{}");
    let names = |before: &str, after: &str| {
        differing(&bench.plan(&format!("FROM base\n{before}\n")), &bench.plan(&format!("FROM base\n{after}\n")))
    };
    let cases: [(&str, &str, &[&str]); 15] = [
        ("RUN a", "RUN b", &["command"]),
        ("ENV A=1\nRUN a", "ENV A=2\nRUN a", &["variable A"]),
        ("RUN a", "ARG B=1\nRUN a", &["variable B"]),
        ("RUN a", "USER u\nRUN a", &["user"]),
        ("WORKDIR /a\nRUN a", "WORKDIR /b\nRUN a", &["destination", "working directory"]),
        ("WORKDIR /a", "USER u\nWORKDIR /a", &["owner"]),
        ("RUN a", "RUN --network=none a", &["network"]),
        ("RUN --mount=target=/t a", "RUN --mount=target=/t,rw a", &["mount /t"]),
        ("RUN --mount=type=secret,id=s,env=A a", "RUN --mount=type=secret,id=s,env=B a", &["secret s"]),
        ("COPY f /x", "COPY --chown=1 --chmod=600 f /y", &["destination", "mode", "owner"]),
        ("COPY f /x", "COPY d /x", &["file d", "file d/g", "file f"]),
        ("COPY <<E /x\na\nE", "COPY <<E /x\nb\nE", &["inline file E"]),
        (
            "COPY --from=base /f /x",
            "COPY --from=base --parents --exclude=a /g /x",
            &["exclude", "parents", "source /f", "source /g"],
        ),
        ("COPY f /x", "ADD f /x", &["unpack"]),
        ("RUN a", "LABEL l=1\nRUN a", &[]),
    ];
    for (before, after, expected) in cases {
        assert_eq!(names(before, after), expected, "{before:?} to {after:?}");
    }
    let before = bench.plan("FROM base\nCOPY d /x\nRUN --mount=target=/t,source=d a\n");
    fs::write(bench.directory.path().join("d/g"), "3").unwrap();
    let after = bench.plan("FROM base\nCOPY d /x\nRUN --mount=target=/t,source=d a\n");
    assert_eq!(differing(&before, &after), ["file d/g"]);
}

#[test]
fn the_names_of_inputs_hold_no_password() {
    let url = "https://user:secret@files.example/a?token=secret";
    let path = std::path::PathBuf::from("/downloads/1");
    let file = crate::remote::RemoteFile { path, digest: Digest::of("1"), size: 1, mtime: 0 };
    let bench = Bench::new().fetched(Remote::Url(url.into()), Fetched::File(file));
    let plan = bench.plan(&format!("FROM scratch\nADD {url} /x\n"));
    let names: Vec<&str> = plan.steps().flat_map(|step| &step.inputs).map(|input| input.name.as_str()).collect();
    assert_eq!(names, ["destination", "unpack", "download https://files.example/a"]);
}

#[test]
fn a_stage_that_is_built_anew_to_the_same_files_is_found_by_content() {
    let bench = Bench::new().file("f", "1").image("base", "{}");
    let text = |run: &str| {
        format!(
            "FROM base AS a\nRUN {run}\nFROM base\nRUN x\nCOPY --from=a /y /z\nRUN --mount=from=a,source=/y,target=/t \
             --mount=type=cache,from=a,source=/y,target=/c z\nCOPY --from=base /y /z\nCOPY f /\n"
        )
    };
    let (one, other) = (bench.plan(&text("one")), bench.plan(&text("other")));
    let keys = |plan: &Plan| plan.target().steps.iter().map(|step| step.key).collect::<Vec<_>>();
    assert_eq!(marks(&keys(&one), &keys(&other)), "=xxxx");
    // The executor knows by then what the stage holds, and that it is what it was.
    let below = one.target().base_key;
    let content = |plan: &Plan, taken: Key| -> Vec<Key> {
        let content = |step: &Step| step.content_key(&below, &vec![taken; step.op.taken().len()]);
        plan.target().steps.iter().map(content).collect()
    };
    assert_eq!(marks(&content(&one, below), &content(&other, below)), "=====");
    assert_eq!(marks(&content(&one, below), &content(&one, keys(&one)[0])), "=xxx=");
    let origins: Vec<Vec<&Origin>> =
        one.target().steps.iter().map(|step| step.op.taken().iter().map(Taken::origin).collect()).collect();
    let (stage, image) = (Origin::Stage(0), Origin::Image(image_for("linux/amd64", "base")));
    assert_eq!(origins, [vec![], vec![&stage], vec![&stage; 2], vec![&image], vec![]]);
}

#[test]
fn the_result_of_a_build_depends_on_what_its_image_says_and_not_on_how_it_is_made() {
    let result = |bench: &Bench, text: &str| {
        let plan = bench.plan(text);
        let layers = |name: &ImageName| bench.known.images[name].layers.clone();
        result_key(&plan, &layers, &yadokari_layers::pack::Options::default())
    };
    let bench = || Bench::new().file("f", "1").image("base", "{}");
    let text = "FROM base AS a\nRUN a\nFROM a AS b\nCOPY f /\n";
    let all = result(&bench(), text);
    let mut labelled = bench();
    labelled.options.labels = vec![("a".into(), "b".into())];
    let mut dated = bench();
    dated.options.epoch = Some(1);
    let mut others = vec![
        result(&labelled, text),
        result(&dated, text),
        result(&bench().file("f", "2"), text),
        result(&bench().image("base", r#"{"Labels":{"l":"1"}}"#), text),
        result(&bench(), &text.replace("RUN a", "RUN b")),
        result(&bench(), &text.replace("COPY f /", "COPY f /\nCMD x")),
        result(&bench(), &text.replace("COPY f /", "COPY f /\nLABEL l=1")),
        result(&bench(), &text.replace("COPY f /", "ENV A=1\nCOPY f /")),
    ];
    others.sort();
    others.dedup();
    assert_eq!((others.len(), others.contains(&all)), (8, false));
    let proxied = bench().build_arg("HTTP_PROXY", "http://proxy").build_arg("no_proxy", "x");
    assert_eq!(result(&proxied, text), all);
    assert_eq!(result(&bench().file("other", "1"), text), all, "what is not copied");
    assert_eq!(result(&bench(), &text.replace("FROM a AS b", "# a comment\nFROM  a AS b")), all);
    assert_eq!(result(&bench(), &text.replace(" AS a", " AS c").replace("FROM a", "FROM c")), all, "names of stages");
}
