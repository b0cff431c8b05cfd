//! Texts of strangers in a page.

use std::fmt::{self, Display, Formatter};

use crate::dockerfile::printable;

/// A text that is shown as it is, whatever it says: as content of an element, or as an attribute's value in quotes.
pub(super) struct Text<'t>(pub(super) &'t str);

impl Display for Text<'_> {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        for c in printable(self.0).chars() {
            match c {
                '&' => out.write_str("&amp;")?,
                '<' => out.write_str("&lt;")?,
                '>' => out.write_str("&gt;")?,
                '"' => out.write_str("&quot;")?,
                '\'' => out.write_str("&#39;")?,
                c => write!(out, "{c}")?,
            }
        }
        Ok(())
    }
}

/// A text of several lines.
pub(super) fn lines<'t>(lines: impl IntoIterator<Item = &'t str>) -> String {
    lines.into_iter().map(|line| Text(line).to_string()).collect::<Vec<_>>().join("\n")
}

/// Enough of a digest to tell it from others.
pub(super) fn short(digest: &yadokari_layers::Digest) -> String {
    digest.hex().chars().take(12).collect()
}
