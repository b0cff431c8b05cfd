//! Lists of tags, and deletions, on the wire.

use super::{answer, client, count, fixture, image, quick, repository};
use crate::memory::{Effect, Fault, Locations, Memory, Served, Serving};
use crate::{BytesBlob, Digest, Error, Manifest, RegistryStore, Store, Version};

const TAGS: &str = "/v2/app/tags/list";

/// Answers the next listing, or the next few, with this page.
fn page(served: &Served, times: u32, tags: &str, link: &str) {
    let effect = answer(200, &[("Link", &format!("<{link}>; rel=\"next\""))], &format!(r#"{{"tags":{tags}}}"#));
    served.inject(Fault { method: "GET", path: TAGS, times, effect });
}

async fn tag(store: &dyn Store, tags: &[&str]) -> Manifest {
    let config = BytesBlob::new("{}");
    store.write_blob(&config, None).await.unwrap();
    let manifest = image(&config, &[]);
    for tag in tags {
        store.write_manifest(&Version::Tag((*tag).into()), &manifest).await.unwrap();
    }
    manifest
}

async fn refused(store: &RegistryStore) -> String {
    let error = store.tags().await.unwrap_err();
    assert!(matches!(error, Error::Protocol { .. }), "{error:?}");
    error.to_string()
}

#[tokio::test]
async fn all_pages_of_a_list_are_read() {
    for locations in [Locations::Relative, Locations::Absolute] {
        let memory = Memory::new().repository("app");
        let served = memory.serve_with(Serving { locations, ..Serving::default() }).await.unwrap();
        let store = repository(&client(quick()), &served, "app");
        let names = ["a", "b", "c", "d", "e", "f", "g"];
        tag(&memory, &names).await;
        assert_eq!(store.tags().await.unwrap(), names);
        let queries: Vec<_> =
            served.seen().into_iter().filter(|seen| seen.path == TAGS).map(|seen| seen.query).collect();
        assert_eq!(queries, ["", "last=c&n=3", "last=f&n=3"]);
    }
}

#[tokio::test]
async fn a_page_that_breaks_off_is_read_again() {
    let (memory, served, store) = fixture().await;
    tag(&memory, &["a", "b", "c", "d"]).await;
    served.inject(Fault { method: "GET", path: TAGS, times: 2, effect: Effect::CutAnswer(5) });
    served.inject(Fault { method: "GET", path: TAGS, times: 1, effect: answer(503, &[], "") });
    assert_eq!(store.tags().await.unwrap(), ["a", "b", "c", "d"]);
    assert_eq!(count(&served, "GET", TAGS), 5);
}

#[tokio::test]
async fn tags_in_disorder_and_twice_are_sorted() {
    let (memory, served, store) = fixture().await;
    tag(&memory, &["b", "c"]).await;
    page(&served, 1, r#"["z","b","a"]"#, "?last=a");
    assert_eq!(store.tags().await.unwrap(), ["a", "b", "c", "z"]);
    page(&served, 1, "null", "?last=b");
    assert_eq!(store.tags().await.unwrap(), ["c"]);
}

#[tokio::test]
async fn a_list_that_leads_elsewhere_or_nowhere_is_an_error() {
    let (memory, served, store) = fixture().await;
    tag(&memory, &["a"]).await;
    let elsewhere = memory.serve().await.unwrap();
    page(&served, 1, r#"["a"]"#, &format!("http://{}{TAGS}?token=secret", elsewhere.host()));
    let error = refused(&store).await;
    assert!(
        error.ends_with(&format!("its next page is on another server: http://{}{TAGS}", elsewhere.host())),
        "{error}"
    );
    assert_eq!(elsewhere.seen().len(), 0);

    page(&served, 9, r#"["a"]"#, "?last=a");
    assert!(refused(&store).await.ends_with("its pages lead in a circle"));

    let (_memory, served, store) = fixture().await;
    page(&served, 1, r#"["a"]"#, "?last=a");
    let error = store.tags().await.unwrap_err();
    assert_eq!(error.to_string(), format!("the next page of the tags not found in {}/app", served.host()));
}

#[tokio::test]
async fn what_is_no_list_is_named() {
    for body in ["<html>", r#"{"tags":[1]}"#, "[]x"] {
        let (_memory, served, store) = fixture().await;
        served.inject(Fault { method: "GET", path: TAGS, times: 1, effect: answer(200, &[], body) });
        let error = refused(&store).await;
        assert!(error.contains("list the tags of") && error.contains("its answer is no list of tags"), "{error}");
    }
}

#[tokio::test]
async fn a_refused_deletion_is_told_in_the_registrys_words() {
    for status in [400, 405] {
        let (memory, served, store) = fixture().await;
        let manifest = tag(&memory, &["a"]).await;
        let words = r#"{"errors":[{"code":"UNSUPPORTED","message":"The operation is unsupported."}]}"#;
        served.inject(Fault { method: "DELETE", path: "", times: 9, effect: answer(status, &[], words) });
        let error = store.delete_manifest(&manifest.digest).await.unwrap_err();
        let Error::Refused { status: told, code: Some(code), .. } = &error else { panic!("{error:?}") };
        assert_eq!((*told, &code[..]), (status, "UNSUPPORTED"));
        let text = error.to_string();
        assert!(text.starts_with(&format!("delete manifest {} of {}/app: ", manifest.digest, served.host())), "{text}");
        assert_eq!(count(&served, "DELETE", ""), 1, "it is not tried again");
        assert_eq!(memory.tags().await.unwrap(), ["a"]);
    }
}

#[tokio::test]
async fn deletions_are_answered_in_several_ways() {
    for status in [200, 202, 204] {
        let (_memory, served, store) = fixture().await;
        served.inject(Fault { method: "DELETE", path: "", times: 1, effect: answer(status, &[], "") });
        assert!(store.delete_manifest(&Digest::of("x")).await.unwrap(), "{status}");
        assert!(!store.delete_manifest(&Digest::of("x")).await.unwrap());
    }
}
