//! What is found by content.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn what_was_found_by_content_is_found_by_its_key_the_next_time() {
    let bench = Bench::cached().await;
    bench.run(TEXT, |_| {}).await;
    let text = TEXT.replace("COPY a .", "COPY a b /other/\nCOPY a .");
    // The repository lacks what is found, and gets it from the cache.
    let changed = bench.run(&text, |request| request.destinations = vec![bench.destination("other:1")]).await;
    assert_eq!(changed.log.matches("[stage-1 1/2] cached").count(), 1, "{}", changed.log);
    let relabelled = text.replace("X=1", "X=2");
    let later = bench.run(&relabelled, |_| {}).await;
    assert!(!later.log.contains("[build"), "the stage is not needed any more: {}", later.log);
    assert_eq!(later.log.matches("] cached").count(), 2, "{}", later.log);
    assert_eq!(later.built.digest, bench.uncached(&relabelled).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_place_has_by_content_is_used_and_not_kept() {
    let bench = Bench::cached().await;
    bench.run(TEXT, |_| {}).await;
    let places = |request: &mut Request| {
        let settings = request.cache.as_mut().unwrap();
        let other = Place::Registry(format!("{}/mine", bench.served.host()).parse().unwrap());
        settings.also.push(std::mem::replace(&mut settings.place, other));
    };
    let text = TEXT.replace("COPY a .", "COPY a b /other/\nCOPY a .");
    let changed = bench.run(&text, places).await;
    assert_eq!(changed.log.matches("[stage-1 1/2] cached").count(), 1, "{}", changed.log);
    assert!(!changed.log.contains("warning"), "{}", changed.log);
    assert_eq!(changed.built.digest, bench.uncached(&text).await);
}
