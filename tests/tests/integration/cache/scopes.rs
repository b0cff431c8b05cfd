//! Branches: each reads its own records first, then those of the branch it names, and writes nobody else's.

use std::collections::BTreeMap;

use yadokari_tests::{Base, Result};

use super::{Bench, CHANCE};

/// A build: its scopes, the number in its Dockerfile, and the earlier build whose RUN it finds, if any. `CI` stands for
/// GitLab's variables of a branch, where `main` is the default one.
struct Row(&'static str, u32, Option<usize>);

const ROWS: [Row; 13] = [
    Row("main", 1, None),
    // A branch begins with what the default branch has.
    Row("b:main", 1, Some(0)),
    Row("b:main", 2, None),
    Row("b:main", 2, Some(2)),
    // What the branch made is nothing to the default branch,
    Row("main", 2, None),
    // nor is it taken from the branch, which reads its own first.
    Row("b:main", 2, Some(2)),
    Row("c:main", 2, Some(4)),
    // A branch that names no other has its own alone.
    Row("d", 2, None),
    // The part without a name is one like the others.
    Row("", 1, None),
    Row("", 1, Some(8)),
    // Nobody has to say it on GitLab.
    Row("CI e", 2, Some(4)),
    Row("CI e", 3, None),
    Row("CI main", 3, None),
];

impl Row {
    /// The part that it writes.
    fn own(&self) -> &'static str {
        self.0.strip_prefix("CI ").unwrap_or(self.0).split(':').next().unwrap_or_default()
    }
}

#[test]
fn a_branch_reads_the_default_branchs_records_and_writes_only_its_own() -> Result<()> {
    let mut bench = Bench::new(&[Base::Busybox])?;
    let cache = format!("--cache-repo={}", bench.registry.reference("scopes/cache"));
    let mut made = Vec::new();
    let mut owners: BTreeMap<String, (&str, String)> = BTreeMap::new();
    for (n, row) in ROWS.iter().enumerate() {
        let (Row(scopes, number, found), own) = (row, row.own());
        let (text, name) = (format!("FROM busybox\nRUN {CHANCE} > /made{number}\n"), format!("scopes/app{n}:1"));
        let scope = format!("--cache-scope={scopes}");
        let variables = [("GITLAB_CI", "true"), ("CI_COMMIT_REF_NAME", own), ("CI_DEFAULT_BRANCH", "main")];
        let (words, variables) = match *scopes {
            "" => (vec![&*cache], &[][..]),
            scopes if scopes.starts_with("CI ") => (vec![&*cache], &variables[..]),
            _ => (vec![&*cache, &*scope], &[][..]),
        };
        let build = bench.build_with(&text, &name, &words, variables)?;
        let layer = bench.layers(&name)?.pop().unwrap();
        let equal = made.iter().position(|earlier| *earlier == layer);
        assert_eq!(equal, *found, "build {n} in {scopes}: {}", build.output);
        made.push(layer);
        // Every tag points to what it pointed to when somebody wrote it first, or its own branch changed it.
        for (tag, digest) in bench.records("scopes/cache")? {
            let (owner, first) = owners.entry(tag.clone()).or_insert_with(|| (own, digest.clone()));
            assert!(*first == digest || *owner == own, "{own} changed {tag}, which is {owner}'s");
            *first = digest;
        }
    }
    for (n, row) in ROWS.iter().enumerate().filter(|(_, row)| row.2.is_none()) {
        assert!(owners.values().any(|(owner, _)| *owner == row.own()), "build {n} wrote no record of {}", row.own());
    }
    Ok(())
}
