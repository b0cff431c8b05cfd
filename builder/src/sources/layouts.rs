//! The names of images in OCI layout directories.

use yadokari_registry::{Layout, Store as _, Version};

/// `DIR`, `DIR:TAG`, `DIR@sha256:…` or `DIR:TAG@sha256:…`, of which the digest counts. A colon before a slash belongs to
/// the directory.
pub(super) fn layout_name(text: &str) -> (&str, Option<Version>) {
    if let Some((directory, digest)) = text.rsplit_once('@')
        && let Ok(digest) = digest.parse()
    {
        return (layout_name(directory).0, Some(Version::Digest(digest)));
    }
    match text.rsplit_once(':') {
        Some((directory, tag)) if !tag.contains('/') => (directory, Some(Version::Tag(tag.to_owned()))),
        _ => (text, None),
    }
}

/// A layout that holds one image needs no tag in its name.
pub(super) async fn only_tag(layout: &Layout) -> Result<Version, yadokari_registry::Error> {
    let tags = layout.tags().await?;
    match &tags[..] {
        [only] => Ok(Version::Tag(only.clone())),
        _ if tags.iter().any(|tag| tag == "latest") => Ok(Version::Tag("latest".into())),
        _ => Err(yadokari_registry::Error::NotFound {
            what: format!("a tag to choose by itself (there are: {})", tags.join(", ")),
            store: layout.describe(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use yadokari_layers::Digest;

    use super::*;

    #[test]
    fn layout_names_hold_a_tag_or_a_digest_or_neither() {
        assert_eq!(layout_name("/a/b"), ("/a/b", None));
        assert_eq!(layout_name("/a/b:c"), ("/a/b", Some(Version::Tag("c".into()))));
        assert_eq!(layout_name("/a:b/c"), ("/a:b/c", None));
        let digest = Digest::of("x");
        assert_eq!(layout_name(&format!("d@{digest}")), ("d", Some(Version::Digest(digest))));
        assert_eq!(layout_name(&format!("d:t@{digest}")), ("d", Some(Version::Digest(digest))));
    }
}
