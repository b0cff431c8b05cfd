//! Dockerfiles with RUNs, put together and edited by chance: the image is the same with the cache and without.
//!
//! COPY and what edits the config have their own such test beside the library; here the steps are those that need a root,
//! and what they take from one another.

use yadokari_tests::{Base, Result};

use super::Bench;

/// How many projects there are.
const PROJECTS: usize = 20;

/// How often each is edited.
const EDITS: usize = 2;

/// Numbers by splitmix64, the same for the same seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }

    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len())]
    }

    /// An instruction of stage `stage`. All succeed wherever they stand.
    fn step(&mut self, stage: usize) -> String {
        let steps = [
            "RUN mkdir -p /d && echo $A-$B >> /d/log",
            "RUN rm -rf /d && mkdir /d",
            "RUN cat /c/* > /all 2>/dev/null || echo nothing > /all",
            "RUN env | sort > /env",
            "RUN chmod 700 /d 2>/dev/null || mkdir -m 700 /d",
            "RUN true",
            "RUN touch /empty # {n}",
            "RUN <<end\nmkdir -p /w/here\necho {n} > /w/here/document\nend",
            "RUN --mount=type=bind,target=/context cat /context/one > /bound",
            "RUN --mount=type=cache,target=/cached{n} touch /cached{n}/x && pwd > /where",
            "RUN id -u > /tmp/who",
            "RUN ln -sf /d/log /link && rm -f /all",
            "COPY one two /c/",
            "COPY --chown=daemon one /c/own",
            "COPY --link two /d/linked",
            "COPY . /c",
            "WORKDIR /w/$A",
            "WORKDIR sub",
            "ENV A={n}",
            "ENV B=$A",
            "ARG A",
            "ARG B=given-{n}",
            "LABEL l={n}",
            "SHELL [\"/bin/sh\", \"-ec\"]",
        ];
        let number = self.below(4).to_string();
        let of_stages = stage > 0 && self.below(4) == 0;
        if of_stages {
            let from = self.below(stage);
            let forms = [
                "COPY --from=s{s} /d* /from{n}/",
                "COPY --link --from=s{s} /c* /from/",
                "RUN --mount=from=s{s},target=/other ls /other > /seen",
            ];
            return self.one(&forms).replace("{s}", &from.to_string()).replace("{n}", &number);
        }
        self.one(&steps).replace("{n}", &number)
    }
}

/// A project: the Dockerfile's stages, the contents of two files, and a build argument.
#[derive(Clone)]
struct Project {
    stages: Vec<Vec<String>>,
    files: [usize; 2],
    argument: usize,
}

impl Project {
    fn new(dice: &mut Dice) -> Self {
        let stages = (0..1 + dice.below(3)).map(|stage| {
            let from = match dice.below(stage + 2) {
                0 | 1 => "busybox".to_owned(),
                earlier => format!("s{}", earlier - 2),
            };
            let steps = (0..2 + dice.below(4)).map(|_| dice.step(stage)).collect::<Vec<_>>();
            [vec![format!("FROM {from} AS s{stage}")], steps].concat()
        });
        Self { stages: stages.collect(), files: [0, 0], argument: 0 }
    }

    fn edit(&mut self, dice: &mut Dice) {
        let stage = dice.below(self.stages.len());
        let at = 1 + dice.below(self.stages[stage].len());
        match dice.below(7) {
            0 => self.files[dice.below(2)] += 1,
            1 => self.files.swap(0, 1),
            2 => self.argument = dice.below(3),
            3 if at < self.stages[stage].len() => _ = self.stages[stage].remove(at),
            4 if at < self.stages[stage].len() => self.stages[stage][at] = dice.step(stage),
            // What had a record before a step that is not there anymore.
            5 if at + 1 < self.stages[stage].len() => self.stages[stage].swap(at, at + 1),
            _ => self.stages[stage].insert(at, dice.step(stage)),
        }
    }

    fn text(&self) -> String {
        self.stages.concat().join("\n") + "\n"
    }
}

#[test]
fn a_cached_build_with_runs_makes_the_image_of_an_uncached_one() -> Result<()> {
    let mut bench = Bench::new(&[Base::Busybox])?;
    let seed = std::env::var("YADOKARI_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1_u64);
    let mut wrong = Vec::new();
    let mut found = 0;
    for number in 0..PROJECTS {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(number as u64));
        let mut project = Project::new(&mut dice);
        let repository = format!("chance/p{number}");
        for edit in 0..=EDITS {
            let text = project.text();
            for (name, content) in ["one", "two"].into_iter().zip(project.files) {
                bench.write(name, &format!("{name} {content}\n"));
            }
            let argument = format!("--build-arg=A=given{}", project.argument);
            let (cached, plain) = (format!("{repository}:cached{edit}"), format!("{repository}-plain:{edit}"));
            let build = bench.build(&text, &cached, &[&argument])?;
            bench.build(&text, &plain, &[&argument, "--cache=false"])?;
            found += u32::from(edit > 0 && !build.output.stderr.contains("sandbox: "));
            if bench.digest(&cached)? != bench.digest(&plain)? || !build.warnings().is_empty() {
                wrong.push(format!("seed {seed}, project {number}, edit {edit}:\n{text}\n{}", build.output));
            }
            project.edit(&mut dice);
        }
    }
    assert!(wrong.is_empty(), "{} are wrong\n{}", wrong.len(), wrong.join("\n\n"));
    // Some edits leave every RUN as it is, so that none is executed.
    assert!(found > 0, "no build found all its RUNs");
    Ok(())
}
