//! `Link`: where a list goes on (RFC 8288, section 3).

/// The target of the first link to the next page, as it stands there.
///
/// One header may hold several links; targets may hold commas and semicolons, and so may quoted values.
pub(crate) fn next<'a>(headers: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    headers.into_iter().find_map(next_in)
}

fn next_in(mut rest: &str) -> Option<&str> {
    loop {
        // Garbage ends what can be understood.
        let link = rest.trim_start_matches([' ', '\t', ',']).strip_prefix('<')?;
        let (target, after) = link.split_once('>')?;
        let (parameters, others) = after.split_at(end(after, ','));
        if is_next(parameters) {
            return Some(target.trim());
        }
        rest = others;
    }
}

/// Whether the relation of a link is `next`, or one of several is. Only the first `rel` counts.
fn is_next(mut parameters: &str) -> bool {
    while !parameters.is_empty() {
        let (parameter, others) = parameters.split_at(end(parameters, ';'));
        if let Some((name, value)) = parameter.split_once('=')
            && name.trim().eq_ignore_ascii_case("rel")
        {
            let relations = value.trim().trim_matches('"').split_ascii_whitespace();
            return relations.into_iter().any(|relation| relation.eq_ignore_ascii_case("next"));
        }
        parameters = others.trim_start_matches(';');
    }
    false
}

/// Where the first `separator` outside quotes is, or the end.
fn end(text: &str, separator: char) -> usize {
    let (mut quoted, mut escaped) = (false, false);
    let ends = |c| {
        let found = c == separator && !quoted;
        (quoted, escaped) = match c {
            _ if escaped => (quoted, false),
            '\\' => (quoted, quoted),
            '"' => (!quoted, false),
            _ => (quoted, false),
        };
        found
    };
    text.find(ends).unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_found_in_any_arrangement() {
        let table: [(&[&str], Option<&str>); 13] = [
            (&[r#"</v2/app/tags/list?last=b&n=2>; rel="next""#], Some("/v2/app/tags/list?last=b&n=2")),
            (&["<https://r.example/a,b;c>;rel=next"], Some("https://r.example/a,b;c")),
            (&["<x>; REL = \"Next\""], Some("x")),
            (&[r#"<x>; rel="prev", <y>; title="a, \"b\"; rel=next"; rel="last next""#], Some("y")),
            (&[r#"<x>; title="<z>; rel=next""#], None),
            (&[r#"<x>; rel="previous"; rel="next""#], None),
            (&["<x>; rel=\"prev\"", "<y>; rel=\"next\""], Some("y")),
            (&["<x>; rel=nextish"], None),
            (&["<x>;; rel=next"], Some("x")),
            (&["<x>"], None),
            (&["<x; rel=next"], None),
            (&["x>; rel=next", "\"", ",", ""], None),
            (&[], None),
        ];
        for (headers, expected) in table {
            assert_eq!(next(headers.iter().copied()), expected, "{headers:?}");
        }
    }
}
