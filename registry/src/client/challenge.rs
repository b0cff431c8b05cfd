//! `WWW-Authenticate`: how a registry says what login it wants (RFC 9110, section 11.6.1).

/// A challenge that we know how to answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// A token from a token server.
    Bearer {
        /// The token server's URL.
        realm: String,
        /// What the token is for, in the token server's words.
        service: Option<String>,
        /// The scopes that this request needs.
        scope: Option<String>,
    },
    /// User and password.
    Basic,
}

/// Reads all challenges of all `WWW-Authenticate` headers of one answer, in order; others than the two are left out.
///
/// One header may hold several challenges, and a quoted value may hold commas.
pub(crate) fn parse<'a>(headers: impl IntoIterator<Item = &'a str>) -> Vec<Challenge> {
    headers.into_iter().flat_map(|header| Parser { rest: header }.challenges()).collect()
}

struct Parser<'a> {
    rest: &'a str,
}

impl Parser<'_> {
    fn challenges(mut self) -> Vec<Challenge> {
        let mut found: Vec<(String, Vec<(String, String)>)> = Vec::new();
        loop {
            self.rest = self.rest.trim_start_matches([' ', '\t', ',']);
            let word = self.word();
            if word.is_empty() {
                // Garbage ends what can be understood, not what was.
                break;
            }
            match (self.value(), found.last_mut()) {
                (Some(value), Some((_, parameters))) => parameters.push((word.to_ascii_lowercase(), value)),
                (Some(_), None) => break,
                (None, _) => found.push((word.to_ascii_lowercase(), Vec::new())),
            }
        }
        found.into_iter().filter_map(|(scheme, parameters)| known(&scheme, &parameters)).collect()
    }

    fn word(&mut self) -> String {
        let end = self.rest.find([' ', '\t', ',', '=', '"']).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word.into()
    }

    /// The value after a parameter's name; `None` where the word was a scheme, or a token68 with its padding.
    fn value(&mut self) -> Option<String> {
        let after = self.rest.trim_start_matches([' ', '\t']).strip_prefix('=')?;
        let after = after.trim_start_matches([' ', '\t']);
        if after.is_empty() || after.starts_with(['=', ',']) {
            self.rest = after.trim_start_matches('=');
            return None;
        }
        self.rest = after;
        let Some(quoted) = after.strip_prefix('"') else { return Some(self.word()) };
        let mut value = String::new();
        let mut chars = quoted.char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    self.rest = &quoted[at + 1..];
                    return Some(value);
                }
                '\\' => value.extend(chars.next().map(|(_, escaped)| escaped)),
                c => value.push(c),
            }
        }
        self.rest = "";
        Some(value)
    }
}

fn known(scheme: &str, parameters: &[(String, String)]) -> Option<Challenge> {
    let value = |name| parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    match scheme {
        "bearer" => {
            Some(Challenge::Bearer { realm: value("realm")?, service: value("service"), scope: value("scope") })
        }
        "basic" => Some(Challenge::Basic),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Challenge {
        Challenge::Bearer { realm: realm.into(), service: service.map(Into::into), scope: scope.map(Into::into) }
    }

    #[test]
    fn challenges_parse_in_any_arrangement() {
        let full = bearer("https://auth.example/token", Some("registry"), Some("repository:a/b:pull,push"));
        let table: [(&[&str], Vec<Challenge>); 11] = [
            (
                &[r#"Bearer realm="https://auth.example/token",service="registry",scope="repository:a/b:pull,push""#],
                vec![full.clone()],
            ),
            (
                &[
                    r#"bearer  scope = "repository:a/b:pull,push" , REALM="https://auth.example/token", service=registry"#,
                ],
                vec![full.clone()],
            ),
            (&[r#"Basic realm="a, b=c""#], vec![Challenge::Basic]),
            (&["Basic"], vec![Challenge::Basic]),
            (&[r#"Basic realm="x", Bearer realm="r""#], vec![Challenge::Basic, bearer("r", None, None)]),
            (&[r#"Bearer realm="r", Basic realm="x""#], vec![bearer("r", None, None), Challenge::Basic]),
            (&[r#"Basic realm="x""#, r#"Bearer realm="r""#], vec![Challenge::Basic, bearer("r", None, None)]),
            (&[r#"Negotiate, Basic realm="x""#], vec![Challenge::Basic]),
            (&[r#"NTLM TlRMTVNTUAAB==, Bearer realm="a\"b\\c""#], vec![bearer(r#"a"b\c"#, None, None)]),
            (&[r#"Bearer service="no realm""#], vec![]),
            (&["", "=", "\"", r#"Bearer realm="unclosed"#], vec![bearer("unclosed", None, None)]),
        ];
        for (headers, expected) in table {
            assert_eq!(parse(headers.iter().copied()), expected, "{headers:?}");
        }
    }
}
