//! Records that are signed: whoever has the key believes no others.

use yadokari_tests::{Base, Result};

use super::{Bench, CHANCE};
use crate::site::printed;

/// The keys of the build that writes and of the one that reads, and whether the second one finds what the first one made.
const ROWS: [(Option<&str>, Option<&str>, bool); 4] =
    [(Some(OURS), Some(OURS), true), (None, Some(OURS), false), (Some(THEIRS), Some(OURS), false), (None, None, true)];

const OURS: &str = "planted-key-of-ours";
const THEIRS: &str = "planted-key-of-theirs";

#[test]
fn a_record_without_the_right_signature_is_refused_with_a_warning() -> Result<()> {
    let mut bench = Bench::new(&[Base::Busybox])?;
    bench.write("file", "one");
    for (n, (writes, reads, found)) in ROWS.iter().enumerate() {
        let text = format!("FROM busybox\nRUN {CHANCE} > /made{n}\nCOPY file /file\n");
        let cache = format!("--cache-repo={}", bench.registry.reference(&format!("signed/cache{n}")));
        let mut build = |name: &str, key: &Option<&str>| {
            let variables: Vec<_> = key.iter().map(|key| ("YADOKARI_CACHE_KEY", *key)).collect();
            bench.build_with(&text, &format!("signed/app{n}:{name}"), &[&cache], &variables)
        };
        let first = build("first", writes)?;
        assert_eq!(first.warnings(), [""; 0], "row {n}");
        let second = build("second", reads)?;
        let third = build("third", reads)?;
        let layers = ["first", "second", "third"].map(|name| bench.layers(&format!("signed/app{n}:{name}")));
        let [first, again, last] = layers.map(|layers| layers.unwrap()[1].clone());
        assert_eq!(first == again, *found, "row {n}: {}", second.output);
        assert_eq!(second.warnings().is_empty(), *found, "row {n}: {}", second.output);
        // What it made instead it can read.
        assert_eq!(again, last, "row {n}: {}", third.output);
        assert_eq!(third.warnings(), [""; 0], "row {n}: {}", third.output);
        // No key is in the log.
        for build in [&second, &third] {
            assert!(!printed(&build.output).contains("planted-key"), "row {n}: {}", build.output);
        }
    }
    Ok(())
}
