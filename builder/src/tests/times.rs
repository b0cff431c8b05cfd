//! Times that an image says.

use std::time::{Duration, SystemTime};

use super::*;

const TEXT: &str = "FROM HOST/dated:1\nWORKDIR /src\nCOPY f .\nENV X=1\n";

/// A file, and a base image with a layer and a line of history that say when they were made.
async fn bench() -> Bench {
    let bench = Bench::new().await.file("f", "content");
    let mut request = bench.request("FROM HOST/base:1\nCOPY f /base\n", &[]);
    request.options.epoch = Some(1_000_000_000);
    request.destinations = vec![Destination::Registry(format!("{}/dated:1", bench.served.host()).parse().unwrap())];
    bench.build(request).await.unwrap();
    bench
}

async fn build(bench: &Bench, reproducible: bool, epoch: Option<i64>) -> Digest {
    let mut request = bench.request(TEXT, &[]);
    (request.options.reproducible, request.options.epoch) = (reproducible, epoch);
    bench.build(request).await.unwrap().digest
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reproducible_image_is_the_same_whenever_it_is_built() {
    let bench = bench().await;
    let first = [build(&bench, true, None).await, build(&bench, false, None).await];
    // Images say whole seconds.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let file = fs::File::options().write(true).open(bench.directory.path().join("f")).unwrap();
    file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1_234_567_890)).unwrap();
    let second = [build(&bench, true, None).await, build(&bench, false, None).await];
    assert_eq!(first[0], second[0]);
    assert_ne!(first[1], second[1], "without the flag it says when it was built");
    assert_eq!(build(&bench, false, Some(0)).await, first[0], "it is the image of 1970");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_epoch_that_is_given_holds_for_a_reproducible_image() {
    let bench = bench().await;
    let (_, base) = bench.pushed("dated").await;
    for (epoch, expected) in [(None, "1970-01-01T00:00:00Z"), (Some(86_400), "1970-01-02T00:00:00Z")] {
        build(&bench, true, epoch).await;
        let (config, layers) = bench.pushed("app").await;
        assert_eq!(config["created"], expected);
        let times: Vec<_> = config["history"].as_array().unwrap().iter().map(|line| &line["created"]).collect();
        assert_eq!(times, ["2001-09-09T01:46:40Z", expected, expected, expected], "the base's own line stays");
        assert_eq!((layers.len(), &layers[..1]), (3, &base[..]));
    }
}
