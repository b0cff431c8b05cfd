//! What the report says of the cache.

use super::*;
use crate::progress::{Report, View};

/// The report of a build of [`TEXT`].
async fn report(bench: &Bench, tag: &str) -> String {
    let mut request = bench.request(TEXT, &[]);
    request.cache = Some(bench.settings());
    request.destinations = vec![bench.destination(tag)];
    let report = Report::default();
    let progress = Arc::new(Progress::with(vec![Box::new(report.clone()) as Box<dyn View>]));
    let built = build(request, Arc::clone(&progress), Interrupt::default()).await.unwrap();
    progress.summary(&built.digest, built.layers, built.size);
    report.page()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_report_says_what_was_cached_and_why_the_rest_was_not() {
    let bench = Bench::cached().await;
    let first = report(&bench, "app:1").await;
    assert!(first.contains("the cache does not know a build of this target"), "{first}");
    assert!(first.contains("<dd>4 executed, 0 cached</dd>"), "{first}");
    assert!(first.contains("<td>download</td>") && first.contains("<td>upload</td>"), "{first}");
    let bench = bench.file("b", "changed");
    let second = report(&bench, "app:1").await;
    assert!(second.contains("<dd>1 executed, 1 cached</dd>"), "{second}");
    assert_eq!(second.matches("<td>file b changed</td>").count(), 1, "{second}");
    // What the base and the cached layer hold is known without reading them.
    assert!(!second.contains("This build had no need to look into the layer"), "{second}");
    for text in ["<code>/app</code>", "<p>1 files, 7 B unpacked</p>", "<td>linked there</td>"] {
        assert!(second.contains(text), "{text}: {second}");
    }
    let third = report(&bench, "app:2").await;
    assert!(third.contains("No step was looked at: the whole image was there before."), "{third}");
}
