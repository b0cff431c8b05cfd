//! A web server of files and git repositories, with the manners that the tests need.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

/// What the server gives for a path.
#[derive(Clone, Default)]
pub(crate) struct Page {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
    /// The `Authorization` that it wants.
    pub(crate) login: Option<String>,
    /// How many bytes of the body are sent; all, where it is not said.
    pub(crate) cut: Option<usize>,
}

impl Page {
    pub(crate) fn of(body: impl Into<Vec<u8>>) -> Self {
        Self { status: 200, body: body.into(), ..Self::default() }
    }

    pub(crate) fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }
}

/// A server that is there as long as its process.
pub(crate) struct Server {
    pub(crate) host: String,
    /// Method, path and login of each request.
    seen: Arc<Mutex<Vec<(String, String)>>>,
}

impl Server {
    /// Serves pages by their paths, and below `repositories` whatever ends in `.git`, by git's own server program. What is
    /// below `/private/` is for whoever has the token `s3cret`.
    pub(crate) fn start(pages: &[(&str, Page)], repositories: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let pages: BTreeMap<String, Page> =
            pages.iter().map(|(path, page)| ((*path).to_owned(), page.clone())).collect();
        let (pages, repositories, seen) = (Arc::new(pages), repositories.to_owned(), Arc::<Mutex<Vec<_>>>::default());
        let diary = Arc::clone(&seen);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (pages, repositories, diary) = (Arc::clone(&pages), repositories.clone(), Arc::clone(&diary));
                std::thread::spawn(move || answer(stream, &pages, &repositories, &diary));
            }
        });
        Self { host, seen }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.host)
    }

    /// The logins that came with requests of a path, empty where there was none.
    pub(crate) fn logins(&self, path: &str) -> Vec<String> {
        let seen = self.seen.lock().unwrap();
        seen.iter().filter(|(seen, _)| seen == path).map(|(_, login)| login.clone()).collect()
    }
}

fn answer(
    stream: TcpStream,
    pages: &BTreeMap<String, Page>,
    repositories: &Path,
    diary: &Mutex<Vec<(String, String)>>,
) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let mut words = lines[0].split(' ');
    let (method, target) = (words.next().unwrap().to_owned(), words.next().unwrap().to_owned());
    let header = |name: &str| {
        let found = lines[1..].iter().filter_map(|line| line.split_once(": "));
        found.clone().find(|(key, _)| key.eq_ignore_ascii_case(name)).map_or("", |(_, value)| value)
    };
    let mut body = vec![0; header("content-length").parse().unwrap_or(0)];
    reader.read_exact(&mut body).unwrap();
    // A proxy is asked for a whole URL.
    let target = target.strip_prefix("http://").map_or(target.as_str(), |rest| &rest[rest.find('/').unwrap()..]);
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let login = header("authorization").to_owned();
    diary.lock().unwrap().push((path.to_owned(), login.clone()));
    let (is_private, path) =
        path.strip_prefix("/private/").map_or((false, path.to_owned()), |rest| (true, format!("/{rest}")));
    let token = format!("Basic {}", BASE64_STANDARD.encode("x-access-token:s3cret"));
    let page = match pages.get(&path) {
        _ if is_private && login != token => Page { status: 401, ..Page::of("who are you?") },
        Some(page) if page.login.as_ref().is_some_and(|wanted| *wanted != login) => {
            Page { status: 403, ..Page::of("forbidden") }
        }
        Some(page) => page.clone(),
        None if path.contains(".git/") => {
            let kind = header("content-type");
            repository(repositories, (&method, &path, query), kind, header("git-protocol"), &body)
        }
        None => Page { status: 404, ..Page::of("there is no such page") },
    };
    let mut head =
        format!("HTTP/1.1 {} -\r\nconnection: close\r\ncontent-length: {}\r\n", page.status, page.body.len());
    page.headers.iter().for_each(|(name, value)| head += &format!("{name}: {value}\r\n"));
    let sent = &page.body[..page.cut.unwrap_or(page.body.len())];
    let mut stream = stream;
    _ = stream.write_all(format!("{head}\r\n").as_bytes()).and_then(|()| stream.write_all(sent));
}

/// The answer of `git http-backend`.
fn repository(root: &Path, (method, path, query): (&str, &str, &str), kind: &str, protocol: &str, body: &[u8]) -> Page {
    let mut command = git(root);
    command.arg("http-backend").env("GIT_PROJECT_ROOT", root).env("GIT_HTTP_EXPORT_ALL", "1").env("PATH_INFO", path);
    command.env("QUERY_STRING", query).env("REQUEST_METHOD", method).env("CONTENT_TYPE", kind);
    command.env("CONTENT_LENGTH", body.len().to_string()).env("GIT_PROTOCOL", protocol);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let body = body.to_vec();
    let writing = std::thread::spawn(move || _ = input.write_all(&body));
    let output = child.wait_with_output().unwrap().stdout;
    writing.join().unwrap();
    let end = output.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    let head = String::from_utf8_lossy(&output[..end]).into_owned();
    let value = |name: &str| {
        let line = head.lines().find_map(|line| line.strip_prefix(name));
        line.map(|line| line.trim_start_matches(": ").to_owned())
    };
    let status = value("Status").and_then(|status| status.split(' ').next().and_then(|code| code.parse().ok()));
    let page = Page { status: status.unwrap_or(200), ..Page::of(&output[end + 4..]) };
    page.header("content-type", &value("Content-Type").unwrap_or_default())
}

/// The git program in a directory, without this machine's settings. It is installed where it is missing and can be.
pub(crate) fn git(directory: &Path) -> Command {
    static THERE: std::sync::Once = std::sync::Once::new();
    THERE.call_once(|| {
        let quiet = |command: &mut Command| command.stdout(Stdio::null()).stderr(Stdio::null()).status();
        if quiet(Command::new("git").arg("version")).is_err() {
            let installed =
                quiet(Command::new("apt-get").args(["install", "-q", "-y", "--no-install-recommends", "git"]));
            assert!(installed.is_ok_and(|status| status.success()), "this test needs git, and cannot install it");
        }
    });
    let mut command = Command::new("git");
    command.current_dir(directory).env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
    for (name, value) in [("NAME", "Somebody"), ("EMAIL", "somebody@example.org"), ("DATE", "1000000000 +0000")] {
        command.env(format!("GIT_AUTHOR_{name}"), value).env(format!("GIT_COMMITTER_{name}"), value);
    }
    command
}

/// Runs git, which must succeed, and gives what it printed.
pub(crate) fn run_git(directory: &Path, words: &[&str]) -> String {
    let output = git(directory).args(["-c", "protocol.file.allow=always"]).args(words).output().unwrap();
    assert!(output.status.success(), "git {words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A daemon of git's own protocol over the repositories in a directory.
pub(crate) struct Daemon(std::process::Child, pub(crate) String);

impl Daemon {
    pub(crate) fn start(root: &Path) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut command = git(root);
        command.arg("daemon").arg(format!("--base-path={}", root.display())).args(["--export-all", "--reuseaddr"]);
        command.arg("--listen=127.0.0.1").arg(format!("--port={}", free.port())).stderr(Stdio::null());
        let daemon = Self(command.spawn().unwrap(), free.to_string());
        for _ in 0..400 {
            if TcpStream::connect(free).is_ok() {
                return daemon;
            }
            std::thread::sleep(std::time::Duration::from_millis(25));
        }
        panic!("git daemon does not listen");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It has children that serve; they end with their connections.
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

/// Repositories: `one.git` with branches, tags, a link, an executable file and the submodule `two.git`.
pub(crate) struct Repositories {
    directory: tempfile::TempDir,
    /// The commits of `one.git` by the names that lead to them.
    pub(crate) commits: BTreeMap<&'static str, String>,
}

impl Repositories {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        let write = |path: &str, content: &str| {
            let path: PathBuf = root.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        };
        for (name, files) in [("two.git", &[("inner", "of two")][..]), ("one.git", &[])] {
            run_git(root, &["init", "-q", "-b", "main", name]);
            files.iter().for_each(|(path, content)| write(&format!("{name}/{path}"), content));
            run_git(&root.join(name), &["add", "."]);
            run_git(&root.join(name), &["commit", "-q", "--allow-empty", "-m", "first"]);
        }
        let one = root.join("one.git");
        write("one.git/file", "content");
        write("one.git/dir/below", "deep");
        write("one.git/tool", "#!/bin/sh\n");
        write("one.git/dos.bat", "a\nb\n");
        write("one.git/.gitattributes", "*.bat text eol=crlf\n");
        write("one.git/.dockerignore", "file\n");
        write("one.git/Dockerfile", "FROM scratch\nCOPY . /c/\n");
        std::os::unix::fs::symlink("file", one.join("link")).unwrap();
        std::os::unix::fs::symlink("/etc", one.join("out")).unwrap();
        run_git(&one, &["update-index", "--add", "--chmod=+x", "tool"]);
        run_git(&one, &["add", "."]);
        run_git(&one, &["update-index", "--chmod=+x", "tool"]);
        run_git(&one, &["commit", "-q", "-m", "second"]);
        run_git(&one, &["tag", "light"]);
        run_git(&one, &["tag", "-a", "annotated", "-m", "words"]);
        run_git(&one, &["submodule", "add", "-q", "../two.git", "module"]);
        run_git(&one, &["commit", "-q", "-m", "third"]);
        run_git(&one, &["checkout", "-q", "-b", "topic/x"]);
        write("one.git/extra", "of topic");
        run_git(&one, &["add", "extra"]);
        run_git(&one, &["commit", "-q", "-m", "fourth"]);
        run_git(&one, &["checkout", "-q", "main"]);
        let of = |name| (name, run_git(&one, &["rev-parse", name]));
        let commits = ["main", "light", "annotated", "topic/x"].map(of).into();
        Self { directory, commits }
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }
}
