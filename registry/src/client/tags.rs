//! Listing tags, page by page.

use std::collections::{BTreeSet, HashSet};
use std::fmt;

use reqwest::{Method, Url};
use serde::de::{Deserialize, Deserializer, Error as _, SeqAccess, Visitor};
use yadokari_layers::Digest;

use super::auth::Scopes;
use super::endpoint::shown;
use super::link;
use super::repository::RegistryStore;
use super::transport::Call;
use crate::reference::is_tag;
use crate::{Error, Result, Store as _};

/// The most pages that are read: more is no list but a registry that does not come to an end.
const MAX_PAGES: usize = 10_000;

/// The most bytes that all pages may have together.
const MAX_LIST: u64 = 64 << 20;

/// The most tags that are kept, as many as fill all pages when they are cache keys: of shorter ones more would fit.
const MAX_TAGS: usize = 1_000_000;

/// A page of tags. Registries that are written in Go say null where there are none.
#[derive(serde::Deserialize)]
struct Page {
    tags: Option<Tags>,
}

/// Tags, each once: what is none would go to terminals, and as many as fit into a page into memory.
struct Tags(BTreeSet<String>);

impl<'de> Deserialize<'de> for Tags {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;

        impl<'de> Visitor<'de> for List {
            type Value = Tags;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of tags")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Tags, A::Error> {
                let mut tags = BTreeSet::new();
                while let Some(tag) = list.next_element::<String>()? {
                    if !is_tag(&tag) {
                        return Err(A::Error::custom("what it names is no tag"));
                    }
                    tags.insert(tag);
                    if tags.len() > MAX_TAGS {
                        return Err(A::Error::custom(format!("it has more than {MAX_TAGS} tags")));
                    }
                }
                Ok(Tags(tags))
            }
        }

        deserializer.deserialize_seq(List)
    }
}

impl RegistryStore {
    /// Lists all tags. How many are on a page is the registry's choice: some refuse a wish that they cannot fulfil.
    pub(super) async fn list_tags(&self) -> Result<Vec<String>> {
        let operation = format!("list the tags of {}", self.endpoint.name());
        let scopes = Scopes::pull(&self.endpoint.repository);
        let mut call = Call::new(Method::GET, self.url("tags/list").await?, operation, scopes, &[200, 404]);
        let mut trail = Trail::begin(call.url.clone());
        let (mut tags, mut left) = (BTreeSet::new(), MAX_LIST);
        loop {
            let Some((answer, bytes)) = self.document(&call, left).await? else {
                if trail.is_at_start() {
                    return Ok(Vec::new());
                }
                return Err(Error::NotFound { what: "the next page of the tags".into(), store: self.describe() });
            };
            left -= bytes.len() as u64;
            let page: Page = serde_json::from_slice(&bytes)
                .map_err(|error| answer.broken(format!("its answer is no list of tags: {error}")))?;
            tags.extend(page.tags.map(|tags| tags.0).unwrap_or_default());
            if tags.len() > MAX_TAGS {
                return Err(answer.broken(format!("its list has more than {MAX_TAGS} tags")));
            }
            let Some(next) = link::next(answer.headers("link")) else { return Ok(tags.into_iter().collect()) };
            call.url = trail.follow(answer.url(), next).map_err(|reason| answer.broken(reason))?;
        }
    }
}

/// The pages so far.
struct Trail {
    start: Url,
    /// Their digests: a link may be as long as a header.
    visited: HashSet<Digest>,
}

impl Trail {
    fn begin(start: Url) -> Self {
        Self { visited: HashSet::from([Digest::of(start.as_str())]), start }
    }

    fn is_at_start(&self) -> bool {
        self.visited.len() == 1
    }

    /// The page that a link on the page at `base` leads to: another one of the same server, which has our login.
    fn follow(&mut self, base: &Url, link: &str) -> Result<Url, String> {
        let next = base.join(link).map_err(|error| format!("its link to the next page is no URL: {error}"))?;
        if next.origin() != self.start.origin() {
            return Err(format!("its next page is on another server: {}", shown(&next)));
        }
        if self.visited.len() == MAX_PAGES {
            return Err(format!("its list has more than {MAX_PAGES} pages"));
        }
        if !self.visited.insert(Digest::of(next.as_str())) {
            return Err("its pages lead in a circle".into());
        }
        Ok(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_holds_tags_and_not_without_end() {
        let read = |text: &str| serde_json::from_str::<Page>(text).map(|page| page.tags.map(|tags| tags.0.len()));
        assert_eq!(read(r#"{"tags":["a","b","a"]}"#).unwrap(), Some(2));
        assert_eq!(read(r#"{"tags":null}"#).unwrap(), None);
        for tags in [r#"["a","\u001b[31m"]"#, r#"["../a"]"#, r#"[""]"#, r#""a""#, r#"{"a":"b"}"#] {
            assert!(read(&format!(r#"{{"tags":{tags}}}"#)).is_err(), "{tags}");
        }
        let many: Vec<_> = (0..=MAX_TAGS).map(|n| format!("\"{n}\"")).collect();
        let error = read(&format!(r#"{{"tags":[{}]}}"#, many.join(","))).unwrap_err();
        assert!(error.to_string().contains("more than 1000000 tags"), "{error}");
    }

    #[test]
    fn a_list_stays_with_its_server_and_comes_to_an_end() {
        let start: Url = "https://r.example/v2/app/tags/list".parse().unwrap();
        let mut trail = Trail::begin(start.clone());
        for elsewhere in [
            "http://r.example/v2/app/tags/list?n=1",
            "https://r.example:5000/",
            "//other.example/",
            "file:///etc/passwd",
        ] {
            let reason = trail.follow(&start, elsewhere).unwrap_err();
            assert!(reason.starts_with("its next page is on another server: "), "{elsewhere}: {reason}");
        }
        assert!(trail.follow(&start, "https://").unwrap_err().contains("is no URL"));
        let second = trail.follow(&start, "?last=a").unwrap();
        assert_eq!(second.as_str(), "https://r.example/v2/app/tags/list?last=a");
        assert!(trail.follow(&second, "list?last=a").unwrap_err().contains("circle"));
        assert!(trail.follow(&second, "/v2/app/tags/list").unwrap_err().contains("circle"));
        for page in 2..MAX_PAGES {
            trail.follow(&second, &format!("https://r.example:443/v2/app/tags/list?last={page}")).unwrap();
        }
        assert!(trail.follow(&second, "?last=z").unwrap_err().contains("more than 10000 pages"));
    }
}
