//! What people paste: each recipe, and each command of the pages, is held against the parser and the image's layout.

use std::collections::BTreeSet;
use std::path::Path;

use yadokari_registry::Reference;
use yaml_rust2::{Yaml, YamlLoader};

use super::contract::flags_of;
use super::*;

const RECIPES: [&str; 5] = [
    "recipes/gitlab/.gitlab-ci.yml",
    "recipes/gitlab/platforms.gitlab-ci.yml",
    COMPONENT,
    "recipes/kubernetes/job.yaml",
    TASK,
];
const COMPONENT: &str = "recipes/gitlab/templates/build.yml";
const TASK: &str = "recipes/tekton/task.yaml";

const PAGES: [&str; 8] = [
    "README.md",
    "recipes/README.md",
    "docs/cache.md",
    "docs/credentials.md",
    "docs/migrate-from-docker-build.md",
    "docs/migrate-from-kaniko.md",
    "docs/output.md",
    "docs/pod-security.md",
];

/// What stands for the image that readers make themselves.
const IMAGE: &str = "registry.example.com/yadokari/executor:debug";

/// The places that the image has, or that whoever runs it makes.
const LAYOUT: [&str; 11] = [
    "/kaniko/executor",
    "/kaniko/warmer",
    "/kaniko/.docker",
    "/kaniko/ssl/certs",
    "/kaniko/work",
    "/busybox/sh",
    "/bin/sh",
    "/workspace",
    "/builds/team/app",
    "/tekton/results",
    "/dev/termination-log",
];

/// What GitLab, Tekton and the jobs themselves put in the place of names; a name that another one begins with comes later.
const VARIABLES: [(&str, &str); 18] = [
    ("$CI_PROJECT_DIR", "/builds/team/app"),
    ("$CI_REGISTRY_IMAGE", "registry.example.com/team/app"),
    ("$CI_REGISTRY_USER", "user"),
    ("$CI_REGISTRY_PASSWORD", "password"),
    ("$CI_REGISTRY", "registry.example.com"),
    ("$CI_COMMIT_SHORT_SHA", "0a1b2c3d"),
    ("$CI_COMMIT_REF_SLUG", "main"),
    ("$CI_COMMIT_TAG", "v1.0"),
    ("$ARCH", "amd64"),
    ("$IMAGE", "registry.example.com/team/app:1"),
    ("$(workspaces.source.path)", "/workspace/source"),
    ("$(results.IMAGE_DIGEST.path)", "/tekton/results/IMAGE_DIGEST"),
    ("$(results.IMAGE_URL.path)", "/tekton/results/IMAGE_URL"),
    ("$(params.IMAGE)", "registry.example.com/team/app:1"),
    ("$(params.DOCKERFILE)", "./Dockerfile"),
    ("$(params.CONTEXT)", "./"),
    ("$(params.BUILDER_IMAGE)", IMAGE),
    ("$(params.EXTRA_ARGS[*])", "--skip-tls-verify"),
];

fn read(path: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    fs::read_to_string(file).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn yaml(path: &str, text: &str) -> Vec<Yaml> {
    YamlLoader::load_from_str(text).unwrap_or_else(|error| panic!("{path}: {error}\n{text}"))
}

/// The texts as they are when everything is in its place.
fn with_values(text: &str) -> String {
    VARIABLES.iter().fold(text.to_owned(), |text, (name, value)| text.replace(name, value))
}

/// The documents of a recipe. The inputs of a component have their defaults.
fn documents(path: &str) -> Vec<Yaml> {
    let text = read(path);
    let documents = yaml(path, &text);
    if path != COMPONENT {
        return documents;
    }
    let filled = inputs(&documents[0]).into_iter().fold(text, |text, (name, value)| {
        let place = format!("$[[ inputs.{name} ]]");
        assert!(text.contains(&place), "{path}: the input {name} is not used");
        text.replace(&place, &value)
    });
    assert!(!filled.contains("$[["), "{path}: an input is used that is not declared\n{filled}");
    yaml(path, &filled)
}

/// The inputs of a component and their defaults.
fn inputs(header: &Yaml) -> Vec<(String, String)> {
    let inputs = header["spec"]["inputs"].as_hash().expect("spec: inputs:");
    let input = |(name, input): (&Yaml, &Yaml)| {
        assert!(input["description"].as_str().is_some_and(|text| text.ends_with('.')), "{name:?}");
        let default = match &input["default"] {
            Yaml::Boolean(value) => {
                assert_eq!(input["type"].as_str(), Some("boolean"), "{name:?}");
                value.to_string()
            }
            value => value.as_str().unwrap_or_else(|| panic!("{name:?}: no default")).to_owned(),
        };
        (name.as_str().unwrap().to_owned(), default)
    };
    inputs.iter().map(input).collect()
}

/// Calls `see` with every mapping, from the outside in.
fn mappings(node: &Yaml, see: &mut impl FnMut(&Yaml)) {
    match node {
        Yaml::Hash(entries) => {
            see(node);
            entries.values().for_each(|value| mappings(value, see));
        }
        Yaml::Array(items) => items.iter().for_each(|item| mappings(item, see)),
        _ => {}
    }
}

fn strings(list: &Yaml) -> Vec<&str> {
    list.as_vec().map(|items| items.iter().filter_map(Yaml::as_str).collect()).unwrap_or_default()
}

/// The command lines of ours that a text of the shell has, each word by word.
fn commands_of_shell(text: &str) -> Vec<Vec<String>> {
    let words: Vec<String> = text
        .lines()
        .flat_map(|line| shlex::split(&with_values(line)).unwrap_or_default().into_iter().chain([";".into()]))
        .collect();
    let lines = words.split(|word| [";", "&&", "||", "|", ">"].contains(&&**word));
    lines.filter(|words| words.first().is_some_and(|word| is_ours(word))).map(<[String]>::to_vec).collect()
}

fn is_ours(program: &str) -> bool {
    ["/kaniko/executor", "/kaniko/warmer", "yadokari"].contains(&program)
}

/// The command lines of ours below a node: lines of a script, and arguments of the image's entrypoint.
fn commands_of_yaml(node: &Yaml) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    mappings(node, &mut |mapping| {
        let script = &mapping["script"];
        script.as_str().into_iter().chain(strings(script)).for_each(|text| found.extend(commands_of_shell(text)));
        if !mapping["args"].is_badvalue() {
            assert!(mapping["command"].is_badvalue(), "a command in the place of the entrypoint");
            let arguments = strings(&mapping["args"]).into_iter().map(with_values);
            found.push(["/kaniko/executor".to_owned()].into_iter().chain(arguments).collect());
        }
    });
    found
}

/// Fails where the program would not take the words.
fn is_taken(place: &str, words: &[String]) {
    let line = words.join(" ");
    assert!(!line.contains('$'), "{place}: the test does not know a variable of: {line}");
    let cli =
        parse(words.iter().map(OsString::from).collect()).unwrap_or_else(|error| panic!("{place}: {line}\n{error}"));
    let Command::Build(build) = cli.command else { return };
    build.refuse_what_is_not_carried_out().unwrap_or_else(|error| panic!("{place}: {line}\n{error}"));
    build.target().and_then(|_| build.platforms(&[])).unwrap_or_else(|error| panic!("{place}: {line}\n{error}"));
    for name in build.destination.iter().filter(|name| !name.contains('{')) {
        assert!(name.parse::<Reference>().is_ok(), "{place}: '{name}' in: {line}");
    }
}

/// Fails where an absolute path is none that the image, or whoever runs it, has.
fn is_in_the_image(place: &str, text: &str) {
    let text = with_values(text);
    let separators = |c: char| c.is_whitespace() || "\"'`=:,;()#!".contains(c);
    let paths = text.split(separators).filter(|word| word.starts_with('/') && !word.starts_with("//"));
    for path in paths {
        let is_known = LAYOUT.iter().any(|known| Path::new(path).starts_with(known));
        assert!(is_known, "{place}: nothing makes '{path}', which stands in: {text}");
    }
}

/// The fenced blocks of a page, each with its language; a line that a patch takes away is none.
fn fences(page: &str) -> Vec<(&str, String)> {
    let mut blocks: Vec<(&str, String)> = Vec::new();
    let mut is_open = false;
    for line in page.lines() {
        // In an item of a list a block is as far to the right as the item.
        match (line.trim_start().strip_prefix("```"), blocks.last_mut()) {
            (Some(language), _) if !is_open => {
                blocks.push((language, String::new()));
                is_open = true;
            }
            (Some(_), _) => is_open = false,
            (None, Some((language, text))) if is_open => {
                let kept = if *language == "diff" { line.strip_prefix(['+', ' ']) } else { Some(line) };
                text.extend(kept.into_iter().flat_map(|line| [line, "\n"]));
            }
            _ => {}
        }
    }
    assert!(!is_open, "a block without an end");
    blocks
}

/// What stands in backticks and is ours: in a table, what the last cell has, since the others are about other programs.
fn spans(page: &str) -> Vec<&str> {
    let ours = page.lines().filter(|line| !line.starts_with("```")).flat_map(|line| {
        let row = line.strip_prefix('|').and_then(|row| row.trim_end().strip_suffix('|'));
        row.map_or(line, |row| row.rsplit('|').next().unwrap_or_default()).split('`').skip(1).step_by(2)
    });
    ours.collect()
}

#[test]
fn every_recipe_is_one_of_those_that_are_held_here() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let files = walkdir::WalkDir::new(root.join("recipes")).into_iter().map(Result::unwrap);
    let files = files.filter(|entry| entry.file_type().is_file()).map(|entry| entry.path().to_owned());
    let found: BTreeSet<_> = files.map(|path| path.strip_prefix(&root).unwrap().display().to_string()).collect();
    let known = RECIPES.into_iter().chain(["recipes/README.md"]).map(str::to_owned);
    assert_eq!(found, known.collect::<BTreeSet<_>>());
}

#[test]
fn each_command_of_a_recipe_is_one_that_the_program_takes() {
    for path in RECIPES {
        let commands: Vec<_> = documents(path).iter().flat_map(commands_of_yaml).collect();
        assert!(!commands.is_empty(), "{path} has no command");
        for words in &commands {
            is_taken(path, words);
            words.iter().for_each(|word| is_in_the_image(path, word));
        }
    }
}

#[test]
fn each_path_and_image_of_a_recipe_is_there() {
    for path in RECIPES {
        for document in documents(path) {
            mappings(&document, &mut |mapping| {
                let values = mapping.as_hash().into_iter().flat_map(|entries| entries.iter());
                for (key, value) in values {
                    let texts = value.as_str().into_iter().chain(strings(value));
                    let is_prose = key.as_str().is_some_and(|key| key == "description");
                    for text in texts.filter(|_| !is_prose) {
                        is_in_the_image(path, text);
                        assert!(!text.contains("yadokari/executor") || text == IMAGE, "{path}: {text}");
                    }
                }
            });
        }
    }
}

#[test]
fn no_pod_of_a_recipe_is_privileged() {
    let beyond =
        ["hostPath", "hostNetwork", "hostPID", "hostIPC", "hostPort", "capabilities", "seccompProfile", "procMount"];
    for path in ["recipes/kubernetes/job.yaml", TASK] {
        let mut pods = 0;
        for document in documents(path) {
            mappings(&document, &mut |mapping| {
                for key in beyond {
                    assert!(mapping[key].is_badvalue(), "{path} has {key}, which the level baseline may not allow");
                }
                let is_build = !mapping["args"].is_badvalue();
                let context = &mapping["securityContext"];
                if is_build {
                    pods += 1;
                    assert_eq!(context["privileged"].as_bool(), Some(false), "{path}");
                    assert_eq!(context["runAsUser"].as_i64(), Some(0), "{path}");
                    let work = &mapping["volumeMounts"][0];
                    assert_eq!(work["mountPath"].as_str(), Some("/kaniko/work"), "{path}");
                }
                assert_ne!(context["privileged"].as_bool(), Some(true), "{path}");
            });
        }
        assert_eq!(pods, 1, "{path}");
    }
}

#[test]
fn the_task_declares_what_it_uses_and_uses_what_it_declares() {
    let (text, task) = (read(TASK), documents(TASK).remove(0));
    let (declarations, steps) = text.split_once("\n  steps:\n").unwrap();
    for kind in ["params", "workspaces", "results"] {
        let declared: BTreeSet<_> =
            task["spec"][kind].as_vec().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
        let mark = format!("$({kind}.");
        let used: BTreeSet<_> =
            steps.split(&mark).skip(1).map(|rest| rest.split(['.', ')', '[']).next().unwrap()).collect();
        let mounted = BTreeSet::from(["dockerconfig"]);
        let used = if kind == "workspaces" { used.union(&mounted).copied().collect() } else { used };
        assert_eq!(used, declared, "{kind}");
    }
    assert!(declarations.contains("mountPath: /kaniko/.docker"));
}

#[test]
fn each_command_of_a_page_is_one_that_the_program_takes() {
    let mut known = flags_of(&["build"]);
    known.extend(flags_of(&["gc"]));
    for path in PAGES {
        let page = read(path);
        let mut commands = Vec::new();
        for (language, text) in fences(&page) {
            match language {
                "yaml" | "diff" => commands.extend(yaml(path, &text).iter().flat_map(commands_of_yaml)),
                "sh" => commands.extend(commands_of_shell(&text)),
                other => assert_eq!(other, "", "{path}: a block of another language"),
            }
        }
        let indented = page.lines().filter_map(|line| line.strip_prefix("    "));
        indented.for_each(|line| commands.extend(commands_of_shell(line)));
        // Only the pages about migration are about our flags alone.
        for span in spans(&page).into_iter().filter(|_| path.starts_with("docs/migrate")) {
            if span.starts_with("--") {
                let flags = span.split(' ').filter(|word| word.starts_with("--"));
                for flag in flags.filter_map(|word| word.split('=').next()) {
                    assert!(known.contains(flag), "{path}: there is no {flag}");
                }
            }
            commands.extend(commands_of_shell(span));
        }
        for words in &commands {
            is_taken(path, words);
            words.iter().for_each(|word| is_in_the_image(path, word));
        }
        let is_about_jobs = path.starts_with("docs/migrate") || path == "README.md";
        assert!(!is_about_jobs || commands.len() > 1, "{path}: {commands:?}");
    }
}

#[test]
fn what_is_pasted_is_found_where_it_stands() {
    let page = "```diff\n a:\n   script:\n-    - docker build\n+    - yadokari --context . && true\n```\n   ```sh\n   x\n   ```\n";
    let blocks = fences(page);
    assert_eq!(blocks[0], ("diff", "a:\n  script:\n    - yadokari --context . && true\n".to_owned()));
    assert_eq!(blocks[1].0, "sh");
    let commands: Vec<_> = yaml("a", &blocks[0].1).iter().flat_map(commands_of_yaml).collect();
    assert_eq!(commands, [["yadokari", "--context", "."]]);
    assert_eq!(spans("| `a` | `b` and `c` |\ntext `d`\n"), ["b", "c", "d"]);
    let wrong = |words: &str| std::panic::catch_unwind(|| is_taken("here", &commands_of_shell(words)[0])).is_err();
    assert!(wrong("yadokari --no-such-flag") && wrong("yadokari -d $UNKNOWN") && wrong("yadokari -d A:B:C"));
    assert!(!wrong("yadokari -d a.example/b"));
    let nowhere = |text: &str| std::panic::catch_unwind(|| is_in_the_image("here", text)).is_err();
    assert!(nowhere("--work-dir=/kaniko/elsewhere") && nowhere("cat /etc/passwd") && !nowhere("https://a/b"));
}
