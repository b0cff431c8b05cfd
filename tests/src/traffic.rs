//! What a registry was asked for, counted by what moves: its access log, read for blobs.

use crate::Served;

/// Requests that a registry answered, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traffic(pub Vec<Served>);

impl Traffic {
    /// The blobs whose bytes went down, by repository and digest, and how many bytes.
    pub fn downloads(&self) -> Vec<(String, String, u64)> {
        let gets = self.0.iter().filter(|served| served.method == "GET" && served.bytes > 0 && served.status < 300);
        let blob = |served: &Served| {
            let (repository, digest) = served.path.strip_prefix("/v2/")?.rsplit_once("/blobs/")?;
            Some((repository.to_owned(), digest.to_owned(), served.bytes))
        };
        gets.filter_map(blob).collect()
    }

    /// The blobs whose bytes went up and were kept, by repository and digest.
    pub fn uploads(&self) -> Vec<(String, String)> {
        self.ends_of_uploads("PUT", "digest")
    }

    /// The blobs that came from another repository without a byte on the way, by the repository they went to.
    pub fn mounts(&self) -> Vec<(String, String)> {
        self.ends_of_uploads("POST", "mount")
    }

    /// All requests, a line each, for messages.
    pub fn lines(&self) -> String {
        let line = |served: &Served| format!("{} {} {} {}\n", served.method, served.path, served.status, served.bytes);
        self.0.iter().map(line).collect()
    }

    fn ends_of_uploads(&self, method: &str, parameter: &str) -> Vec<(String, String)> {
        let ends = self.0.iter().filter(|served| served.method == method && served.status == 201);
        let blob = |served: &Served| {
            let (path, query) = served.path.split_once('?')?;
            let (repository, _) = path.strip_prefix("/v2/")?.rsplit_once("/blobs/uploads/")?;
            let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            let (_, digest) = pairs.into_iter().find(|(name, _)| *name == parameter)?;
            Some((repository.to_owned(), digest.replace("%3A", ":").replace("%3a", ":")))
        };
        ends.filter_map(blob).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served(method: &str, path: &str, status: u16, bytes: u64) -> Served {
        Served { method: method.into(), path: path.into(), status, bytes }
    }

    #[test]
    fn blobs_that_move_are_told_from_those_that_do_not() {
        let traffic = Traffic(vec![
            served("GET", "/v2/a/b/manifests/1", 200, 7),
            served("HEAD", "/v2/a/b/blobs/sha256:0", 200, 0),
            served("GET", "/v2/a/b/blobs/sha256:1", 200, 5),
            served("GET", "/v2/a/b/blobs/sha256:2", 404, 9),
            served("POST", "/v2/c/blobs/uploads/?mount=sha256%3A3&from=a", 201, 0),
            served("POST", "/v2/c/blobs/uploads/?mount=sha256%3A4&from=a", 202, 0),
            served("PUT", "/v2/c/blobs/uploads/uuid?_state=x&digest=sha256%3A4", 201, 0),
            served("PUT", "/v2/c/blobs/uploads/uuid?digest=sha256:5", 400, 0),
        ]);
        assert_eq!(traffic.downloads(), [("a/b".into(), "sha256:1".into(), 5)]);
        assert_eq!(traffic.mounts(), [("c".into(), "sha256:3".into())]);
        assert_eq!(traffic.uploads(), [("c".into(), "sha256:4".into())]);
    }
}
