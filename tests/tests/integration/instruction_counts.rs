//! The benches of the layers must not need more and more instructions. They are counted because wall times say little on a
//! machine that does other things as well.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use yadokari_tests::{Result, cache, capture, command, packages, workspace};

/// By as much of its count may a bench differ: a thousand times what repeated runs differ by.
const TOLERANCE: f64 = 0.05;

/// The first time, everything that the benches are linked from is compiled.
const LIMIT: Duration = Duration::from_secs(3600);

const COUNTS: &str = "layers/benches/counts.txt";

/// How to bring the file up to date.
const UPDATE: &str = "cargo bench -q -p yadokari-layers -- --counts > layers/benches/counts.txt";

/// Counts by bench, and where they come from: architecture, compiler and valgrind.
struct Counts {
    head: String,
    counts: BTreeMap<String, f64>,
}

impl Counts {
    fn parse(text: &str) -> Self {
        let (heads, lines): (Vec<_>, Vec<_>) = text.lines().partition(|line| line.starts_with('#'));
        let counts = lines.iter().map(|line| {
            let (name, count) = line.split_once(' ').unwrap_or_else(|| panic!("'{line}' is not a bench and its count"));
            (name.to_owned(), count.parse().unwrap())
        });
        Self { head: heads.join("\n"), counts: counts.collect() }
    }

    fn architecture(&self) -> &str {
        self.head.trim_start_matches(['#', ' ']).split(',').next().unwrap_or_default()
    }

    /// What `counted` has too many instructions of, and what it has fewer of.
    fn compare(&self, counted: &Self) -> (Vec<String>, Vec<String>) {
        let (mut more, mut fewer) = (Vec::new(), Vec::new());
        let names: Vec<_> = self.counts.keys().collect();
        if !names.iter().copied().eq(counted.counts.keys()) {
            more.push(format!("{names:?} are counted there, and here {:?}", counted.counts.keys()));
        }
        for (name, stated) in &self.counts {
            let growth = counted.counts.get(name).map_or(0.0, |count| count / stated - 1.0);
            let line = format!("{name}: {:+.1} % instructions", growth * 100.0);
            if growth > TOLERANCE {
                more.push(line);
            } else if growth < -TOLERANCE {
                fewer.push(line);
            }
        }
        (more, fewer)
    }
}

/// Has the benches built as they are shipped, and counted.
fn count() -> Result<String> {
    packages::ensure()?;
    let mut cargo = command(&std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()));
    cargo.current_dir(workspace()).args(["bench", "--quiet", "--package", "yadokari-layers", "--target-dir"]);
    cargo.arg(cache::target()).args(["--", "--counts"]);
    Ok(capture(&mut cargo, LIMIT)?.ok("cargo bench -- --counts")?.stdout)
}

#[test]
fn no_bench_needs_more_instructions_than_its_count_says() -> Result<()> {
    let stated = Counts::parse(&fs::read_to_string(workspace().join(COUNTS)).unwrap());
    if stated.architecture() != std::env::consts::ARCH {
        eprintln!("skipped: {COUNTS} has counts of {} only", stated.architecture());
        return Ok(());
    }
    let text = count()?;
    let counted = Counts::parse(&text);
    let (more, fewer) = stated.compare(&counted);
    if !fewer.is_empty() {
        println!("fewer than {COUNTS} says, which should say so, too:\n{}\n{UPDATE}", fewer.join("\n"));
    }
    let other = if stated.head == counted.head { "" } else { "\nNot with the same programs: that may be why." };
    let counts = format!("counted:\n{text}\n{COUNTS} has:\n{}", stated.head);
    assert!(more.is_empty(), "{}{other}\n{counts}\nIf it has to be so: {UPDATE}", more.join("\n"));
    Ok(())
}

#[test]
fn five_percent_more_are_too_many_and_five_percent_fewer_are_told() {
    let stated = Counts::parse("# x86_64, rustc 1\na 1000\nb 1000\n");
    assert_eq!((stated.architecture(), stated.counts["a"]), ("x86_64", 1000.0));
    let lines = |text: &str| {
        let (more, fewer) = stated.compare(&Counts::parse(text));
        (more.join(" "), fewer.join(" "))
    };
    assert_eq!(lines("a 1049\nb 951"), (String::new(), String::new()));
    assert_eq!(lines("a 1051\nb 949"), ("a: +5.1 % instructions".into(), "b: -5.1 % instructions".into()));
    assert_ne!(lines("a 1000").0, "", "b is not counted any more");
    assert_ne!(lines("a 1000\nb 1000\nc 1").0, "", "nobody has taken the count of c");
}
