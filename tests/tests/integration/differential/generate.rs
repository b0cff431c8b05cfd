//! Dockerfiles put together by chance, the same ones for the same seed: combinations that nobody thinks of.

use yadokari_tests::dialect::Case;

/// How many there are.
const COUNT: usize = 40;

/// The generated cases. `YADOKARI_SEED` makes others; a case that fails names the seed that it came from.
pub(super) fn cases() -> Vec<Case> {
    let seed = std::env::var("YADOKARI_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    (0..COUNT).map(|number| Generator::new(seed, number).case(seed, number)).collect()
}

/// Whether a case is one of them: nobody has said what becomes of it.
pub(super) fn is_generated(case: &Case) -> bool {
    case.place.starts_with("generated")
}

struct Generator {
    state: u64,
    text: String,
    /// The instructions that have been written, to name what they make.
    written: usize,
    /// The stages so far: their names, and whether they have a shell.
    stages: Vec<(String, bool)>,
    shell: bool,
    root: bool,
}

const VARIABLES: [&str; 5] = ["A", "B", "LONG_name", "P", "UNSET"];
const SOURCES: [&str; 12] =
    ["a.txt", "b.txt", "dir", "dir/sub", "*.txt", "d*/o*", "odd", "tool", "ptr", "dirptr", "dir/", "with*"];
const DESTINATIONS: [&str; 9] = ["/p/", "/p/q/", "/etc/", "rel/", "./", "/new/x/", "/p/sub/", "/tmp/", "/dest/"];
const PATHS: [&str; 6] = ["/p", "/p/q", "/dest", "/new/x", "/p/sub", "/made"];

impl Generator {
    fn new(seed: u64, number: usize) -> Self {
        let state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(number as u64);
        Self { state, text: String::new(), written: 0, stages: Vec::new(), shell: true, root: true }
    }

    /// The next number below `bound`, by splitmix64.
    fn below(&mut self, bound: usize) -> usize {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }

    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len())]
    }

    fn case(mut self, seed: u64, number: usize) -> Case {
        let mut case = Case::new(&format!("generated-{number}"), &format!("generated from seed {seed}"));
        if self.below(3) == 0 {
            let value = self.one(&["given", "two words", ""]);
            case.options.push(format!("--build-arg=A={value}"));
        }
        if self.below(2) == 0 {
            self.text += "ARG A=global\nARG P=a/b.c/d.e\n";
        }
        for _ in 0..=self.below(3) {
            self.stage();
        }
        case.files[0].body = self.text;
        case
    }

    fn stage(&mut self) {
        let name = format!("s{}", self.stages.len());
        let earlier = self.stages.len();
        let (base, shell) = match self.below(6) {
            0 if earlier > 0 => {
                let (base, shell) = &self.stages[earlier - 1];
                (base.clone(), *shell)
            }
            0 | 1 => ("rich".to_owned(), true),
            2 if earlier > 0 => ("scratch".to_owned(), false),
            _ => ("busybox".to_owned(), true),
        };
        // Of what a stage leaves its child, the user matters here.
        (self.shell, self.root) = (shell, false);
        self.text += &format!("FROM {base} AS {name}\nUSER root\n");
        self.root = true;
        for _ in 0..3 + self.below(8) {
            let line = self.instruction();
            self.text += &line;
            self.text.push('\n');
            self.written += 1;
        }
        self.stages.push((name, shell));
    }

    fn instruction(&mut self) -> String {
        match self.below(20) {
            0 | 1 => format!("ENV {}", self.pairs()),
            2 => format!("ARG {}={}", self.one(&VARIABLES[..4]), self.word()),
            3 => format!("LABEL {}", self.pairs()),
            4..=6 => self.copy(),
            7 if !self.stages.is_empty() => self.copy_from(),
            7 | 8 => {
                format!("ADD {} {}", self.one(&["arch.tar", "arch.tgz", "arch.zst a.txt", "dir"]), self.destination())
            }
            9 => format!("WORKDIR {}", self.one(&["/p", "/p/w", "rel", "../up", "/made/by/workdir", "/$A", "."])),
            10 => format!("EXPOSE {} {}", 80 + self.below(3), self.one(&["90/udp", "100-102", "443/TCP"])),
            11 => format!("VOLUME {}", self.one(&["/v", "/v /w", "[\"/x y\"]", "/${A:-none}"])),
            12 => self.user(),
            13 => format!(
                "{} {}",
                self.one(&["CMD", "ENTRYPOINT"]),
                self.one(&["echo $A", "[\"a\", \"b c\"]", "[]", "x && y"])
            ),
            14 => self
                .one(&[
                    "STOPSIGNAL SIGINT",
                    "HEALTHCHECK --retries=2 --interval=1m CMD true $A",
                    "HEALTHCHECK NONE",
                    "ONBUILD LABEL triggered=yes",
                    "SHELL [\"/bin/sh\", \"-ec\"]",
                    "LABEL legacy some   words",
                ])
                .to_owned(),
            _ if self.shell => self.run(),
            _ => self.copy(),
        }
    }

    fn pairs(&mut self) -> String {
        let pair = |own: &mut Self| format!("{}={}", own.one(&VARIABLES[..4]), own.word());
        (0..=self.below(3)).map(|_| pair(self)).collect::<Vec<_>>().join(" ")
    }

    /// A word with everything that a word can hold.
    fn word(&mut self) -> String {
        let part = |own: &mut Self| {
            let name = own.one(&VARIABLES);
            match own.below(12) {
                0 => format!("${name}"),
                1 => format!("${{{name}}}"),
                2 => format!("${{{name}:-other}}"),
                3 => format!("${{{name}:+set}}"),
                4 => format!("${{{name}#*/}}"),
                5 => format!("${{{name}%%.*}}"),
                6 => format!("\"${name} 'x'\""),
                7 => format!("'${name} \"y\"'"),
                8 => format!("\\${name}"),
                9 => "a\\ b".to_owned(),
                10 => format!("${{{name}:-${{A}}}}"),
                _ => own.one(&["plain", "a/b.c/d", "x=y", "ü"]).to_owned(),
            }
        };
        (0..=self.below(3)).map(|_| part(self)).collect()
    }

    fn destination(&mut self) -> String {
        self.one(&DESTINATIONS).to_owned()
    }

    fn flags(&mut self) -> String {
        let chown = self.one(&["", "", " --chown=3:4", " --chown=5"]);
        let chmod = self.one(&["", "", "", " --chmod=640", " --chmod=0755"]);
        format!("{chown}{chmod}")
    }

    fn copy(&mut self) -> String {
        if self.below(6) == 0 {
            let (flags, word, destination) = (self.flags(), self.word(), self.destination());
            return format!("COPY{flags} <<end {destination}\n{word} $A\nend");
        }
        let sources: Vec<_> = (0..=self.below(2)).map(|_| self.one(&SOURCES)).collect();
        format!("COPY{} {} {}", self.flags(), sources.join(" "), self.destination())
    }

    fn copy_from(&mut self) -> String {
        let stage = self.below(self.stages.len());
        let from = if self.below(2) == 0 { stage.to_string() } else { self.stages[stage].0.clone() };
        // What is there in every stage that has a shell; a pattern need not match.
        let source = if self.stages[stage].1 { self.one(&["/etc/group", "/etc", "/p*", "/dest*"]) } else { "/p*" };
        format!("COPY{} --from={from} {source} {}", self.flags(), self.destination())
    }

    fn user(&mut self) -> String {
        let user = self.one(&["root", "daemon", "5:6", "0"]);
        self.root = matches!(user, "root" | "0");
        format!("USER {user}")
    }

    /// A command that always makes a file of its own, so that no step is without a change.
    fn run(&mut self) -> String {
        let number = self.written;
        if !self.root {
            return format!("RUN echo \"$A $B\" $(id -u) > /tmp/user-{number}");
        }
        let (path, other) = (self.one(&PATHS), self.one(&PATHS));
        let line = match self.below(9) {
            0 => format!("mkdir -p {path} && echo {number} > {path}/made-{number}"),
            1 => format!("rm -rf {path}"),
            2 => format!("if [ -e {path} ]; then chmod -R g-r {path}; fi"),
            3 => format!("if [ -e {path} ]; then chown -R 7:8 {path}; fi"),
            4 => format!("mkdir -p {path} && ln -sfn {other} {path}/link-{number}"),
            5 => format!("rm -rf /moved && if [ -d {path} ]; then mv {path} /moved; fi"),
            6 => format!("rm -rf /copied && if [ -d {path} ]; then cp -r {path} /copied; fi"),
            7 => format!("rm -rf {path} && mkdir -p {path} && echo $A > {path}/again"),
            _ => "rm -f /bin/yes".to_owned(),
        };
        match self.below(3) {
            0 => format!("RUN <<end\n{line}\necho \"$B\" > /ran-{number}\nend"),
            1 => format!("RUN {line} && \\\n    echo \"$LONG_name\" > /ran-{number}"),
            _ => format!("RUN {line}; echo $P > /ran-{number}"),
        }
    }
}

#[test]
fn the_same_seed_makes_the_same_cases() {
    let texts = |seed| (0..5).map(|n| Generator::new(seed, n).case(seed, n).text().to_owned()).collect::<Vec<_>>();
    assert_eq!(texts(7), texts(7));
    assert_ne!(texts(7), texts(8));
}
