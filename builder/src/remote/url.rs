//! As much of URLs as telling repositories, archives and files apart needs.

/// The scheme of `scheme://…` in lower case, where it is one that is fetched from.
pub(super) fn scheme(text: &str) -> Option<&'static str> {
    let (scheme, _) = text.split_once("://")?;
    ["http", "https", "git", "ssh"].into_iter().find(|known| scheme.eq_ignore_ascii_case(known))
}

/// Whether a text is `user@host:path`, which names a repository to reach with SSH.
pub(super) fn is_scp(text: &str) -> bool {
    let Some((login, _)) = text.split_once(':') else { return false };
    let Some((user, host)) = login.split_once('@') else { return false };
    let word = |text: &str, other: u8| {
        let known = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == other;
        !text.is_empty() && text.bytes().all(known)
    };
    word(user, b'_') && word(host, b'.')
}

/// The host of a URL or of `user@host:path`, with its port.
pub(super) fn host(text: &str) -> &str {
    match text.split_once("://") {
        Some((_, rest)) => {
            let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
            authority.rsplit_once('@').map_or(authority, |(_, host)| host)
        }
        None => {
            let login = text.split_once(':').map_or(text, |(login, _)| login);
            login.split_once('@').map_or(login, |(_, host)| host)
        }
    }
}

/// The host without its port.
pub(crate) fn host_name(text: &str) -> &str {
    let host = host(text);
    match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => host.split_once(':').map_or(host, |(name, _)| name),
    }
}

/// The path of a URL as it is written, without query and fragment.
pub(super) fn path(text: &str) -> &str {
    let rest = text.split_once("://").map_or("", |(_, rest)| rest);
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    rest.find('/').map_or("", |at| &rest[at..])
}

/// The URL without what may be secret in it: the user, the password, the query. What names a repository on another
/// host's SSH keeps its user, who is no secret.
pub(super) fn shown(text: &str) -> String {
    match text.split_once("://") {
        Some((scheme, _)) => format!("{scheme}://{}{}", host(text), path(text)),
        None => text.to_owned(),
    }
}

/// The name under which a file from a URL is stored: the last part of its path.
pub(super) fn file_name(text: &str) -> Option<String> {
    let path = decoded(path(text));
    let name = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    (!matches!(name, "" | "." | "..") && !name.contains('\0')).then(|| name.to_owned())
}

/// The pairs of a query, decoded.
pub(super) fn query(text: &str) -> Vec<(String, String)> {
    let pairs = text.split('&').filter(|pair| !pair.is_empty());
    let pair = |pair: &str| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decoded(&key.replace('+', " ")), decoded(&value.replace('+', " ")))
    };
    pairs.map(pair).collect()
}

/// A text with its `%XX` decoded. What is no escape stays as it is.
pub(super) fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let digit = |byte: &u8| char::from(*byte).to_digit(16);
        let escaped = match (first, tail) {
            (b'%', [high, low, ..]) => digit(high).zip(digit(low)).map(|(high, low)| (high * 16 + low) as u8),
            _ => None,
        };
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        let url = "https://user:p%40ss@host.example:8443/a%20b/c.tgz?sig=x#frag";
        assert_eq!((host(url), host_name(url), path(url)), ("host.example:8443", "host.example", "/a%20b/c.tgz"));
        assert_eq!(shown(url), "https://host.example:8443/a%20b/c.tgz");
        assert_eq!(shown("git@host:a/b"), "git@host:a/b");
        assert_eq!((host("git@h.example:a:b"), host_name("http://[::1]:80/x")), ("h.example", "::1"));
    }

    #[test]
    fn files_have_the_name_that_ends_the_path() {
        let cases = [
            ("https://x/a/b.txt", Some("b.txt")),
            ("https://x/a%20b?c=/d", Some("a b")),
            ("https://x/dir/", Some("dir")),
            ("https://x/a%2Fb", Some("b")),
            ("https://x/%zz", Some("%zz")),
            ("https://x/", None),
            ("https://x", None),
            ("https://x?a/b", None),
            ("https://x/..", None),
        ];
        for (url, name) in cases {
            assert_eq!(file_name(url).as_deref(), name, "{url}");
        }
    }
}
