//! What the flags make of it: where the cache is, what is kept in it, who writes.

use yadokari_tests::{Base, Result};

use super::{Bench, CHANCE};

/// The words of a build, those of the next one, and whether that one finds the RUN of the first. OWN is a cache repository of
/// the row's own, OTHER another one.
const ROWS: [(&[&str], &[&str], bool); 14] = [
    (&[], &[], true),
    (&["--cache-repo=OWN"], &["--cache-repo=OWN"], true),
    (&["--cache-repo=OWN"], &["--cache-repo=OTHER"], false),
    (&["--cache-repo=OWN"], &["--cache-repo=OTHER", "--cache-from=OWN"], true),
    (&["--cache-repo=OWN"], &["--cache-repo=OTHER", "--cache-from=OTHER-STILL", "--cache-from=OWN"], true),
    (&["--cache-repo=oci:/kaniko/cache"], &["--cache-repo=oci:/kaniko/cache"], true),
    (&["--no-push-cache"], &[], false),
    (&[], &["--no-push-cache"], true),
    (&[], &["--cache-ttl=0"], false),
    (&[], &["--cache=false"], false),
    (&["--cache=false"], &[], false),
    (&[], &["--cache-run-layers=false"], false),
    (&["--cache-run-layers=false"], &[], false),
    (&["--cache-copy-layers=false"], &["--cache-copy-layers=false"], true),
];

#[test]
fn the_flags_say_where_records_are_and_which_are_read_and_written() -> Result<()> {
    let mut bench = Bench::new(&[Base::Busybox])?;
    bench.write("file", "content");
    for (n, (first, second, found)) in ROWS.iter().enumerate() {
        let text = format!("FROM busybox\nRUN {CHANCE} > /made{n}\nCOPY file /file\n");
        let [own, other] = ["own", "other"].map(|name| bench.registry.reference(&format!("options/{name}{n}")));
        let words = |words: &[&str]| -> Vec<String> {
            words
                .iter()
                .map(|word| word.replace("OTHER", &other).replace("OWN", &own).replace("-STILL", "-still"))
                .collect()
        };
        let mut made = Vec::new();
        for row in [first, second] {
            let words = words(row);
            let before = bench.records(&format!("options/own{n}"))?;
            let name = format!("options/app{n}:1");
            let build = bench.build(&text, &name, &words.iter().map(String::as_str).collect::<Vec<_>>())?;
            made.push((bench.layers(&name)?[1].clone(), build));
            if row.iter().any(|word| word.ends_with("from=OWN")) {
                assert_eq!(
                    bench.records(&format!("options/own{n}"))?,
                    before,
                    "row {n}: what is only read is not written"
                );
            }
        }
        assert_eq!(made[0].0 == made[1].0, *found, "row {n}: {second:?} after {first:?}: {}", made[1].1.output);
        assert_eq!(made[1].1.warnings(), [""; 0], "row {n}");
    }
    Ok(())
}
