//! Names of users and groups, resolved against the image's own passwd and group, never the host's.

use yadokari_layers::{RelPath, Tree};

/// A process's identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The user.
    pub uid: u32,
    /// The primary group.
    pub gid: u32,
    /// The supplementary groups: the primary one is among them, so that leaving it changes nothing.
    pub groups: Vec<u32>,
    /// The home directory.
    pub home: String,
}

/// A name that the image does not know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} '{name}' is not in the image's /etc/{file}")]
pub struct UnknownName {
    kind: &'static str,
    name: String,
    file: &'static str,
}

struct Passwd<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

/// The identity that USER names: `user`, `uid`, `user:group`, `uid:gid` or nothing, which is root. Without a group, the
/// user's primary and supplementary groups hold; with one, that group alone.
pub fn identity(tree: &Tree, user: &str) -> Result<Identity, UnknownName> {
    let passwd_text = text(tree, "etc/passwd");
    let group_text = text(tree, "etc/group");
    let (user, group) = match user.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (user, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let entry = passwd(&passwd_text).find(|entry| entry.name == user);
    let entry = match (entry, user.parse::<u32>()) {
        (Some(entry), _) => Some(entry),
        (None, Ok(uid)) => passwd(&passwd_text).find(|entry| entry.uid == uid),
        (None, Err(_)) => return Err(UnknownName { kind: "user", name: user.into(), file: "passwd" }),
    };
    let uid = entry.as_ref().map(|entry| entry.uid).or_else(|| user.parse().ok()).unwrap_or(0);
    let home = entry.as_ref().map(|entry| entry.home).filter(|home| !home.is_empty()).unwrap_or("/").to_owned();
    if let Some(group) = group {
        let gid = find_group(&group_text, group)?;
        return Ok(Identity { uid, gid, groups: vec![gid], home });
    }
    let gid = entry.as_ref().map_or(0, |entry| entry.gid);
    let mut groups = vec![gid];
    if let Some(entry) = &entry {
        let member = |group: &Group<'_>| group.members.split(',').any(|member| member == entry.name);
        groups.extend(self::groups(&group_text).filter(member).map(|group| group.gid).filter(|&other| other != gid));
    }
    Ok(Identity { uid, gid, groups, home })
}

/// The owner that `--chown` names, or that USER gives to the directory of a WORKDIR. Numbers are taken as they are; a
/// user without a group brings its primary group, and a number the group of the same number. Nothing is root, on either
/// side of the colon, and `root` is it whatever the image says.
pub fn owner(tree: &Tree, text: &str) -> Result<(u32, u32), UnknownName> {
    let (user, group) = match text.split_once(':') {
        Some((user, "")) => (user, Some("0")),
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let (uid, own_gid) = match user.parse() {
        Ok(uid) => (uid, uid),
        Err(_) if user.is_empty() || user == "root" => (0, 0),
        Err(_) => {
            let identity = identity(tree, user)?;
            (identity.uid, identity.gid)
        }
    };
    let gid = match group {
        Some("root") => 0,
        Some(group) => group.parse().or_else(|_| find_group(&self::text(tree, "etc/group"), group))?,
        None => own_gid,
    };
    Ok((uid, gid))
}

fn find_group(text: &str, name: &str) -> Result<u32, UnknownName> {
    let named = groups(text).find(|group| group.name == name).map(|group| group.gid);
    named.or_else(|| name.parse().ok()).ok_or_else(|| UnknownName { kind: "group", name: name.into(), file: "group" })
}

fn text(tree: &Tree, path: &str) -> String {
    let path = RelPath::new(path).expect("the callers' paths are clean");
    tree.inline(&path).map(|bytes| String::from_utf8_lossy(bytes).into_owned()).unwrap_or_default()
}

/// The well-formed lines; others are passed over, as the C library does.
fn passwd(text: &str) -> impl Iterator<Item = Passwd<'_>> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let (uid, gid) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
        Some(Passwd { name, uid, gid, home: fields.nth(1).unwrap_or("") })
    })
}

fn groups(text: &str) -> impl Iterator<Item = Group<'_>> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        Some(Group { name, gid: fields.nth(1)?.parse().ok()?, members: fields.next().unwrap_or("").trim() })
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use yadokari_layers::{Entry, IndexBuilder, Timestamp};

    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nbroken\napp:x:1000:1001::/home/app:/bin/sh\n";
    const GROUP: &str =
        "none\n:x:9:app\nmany:x:number:app\nroot:x:0:\napps:x:1001:\nextra:x:7:root,app\nother:x:8:application\n";

    fn tree() -> Tree {
        let mut builder = IndexBuilder::new();
        for (path, content) in [("etc/passwd", PASSWD), ("etc/group", GROUP)] {
            let entry = Entry::file(content.len() as u64, 0o644, Timestamp::default());
            builder.put(RelPath::new(path).unwrap(), entry, Some(content.into()));
        }
        Tree::of([Arc::new(builder.finish())])
    }

    fn ids(user: &str) -> (u32, u32, Vec<u32>, String) {
        let Identity { uid, gid, groups, home } = identity(&tree(), user).unwrap();
        (uid, gid, groups, home)
    }

    #[test]
    fn a_user_brings_its_groups_and_home() {
        assert_eq!(ids(""), (0, 0, vec![0, 7], "/root".into()));
        assert_eq!(ids("app"), (1000, 1001, vec![1001, 7], "/home/app".into()));
        assert_eq!(ids("1000"), (1000, 1001, vec![1001, 7], "/home/app".into()));
        assert_eq!(ids("4242"), (4242, 0, vec![0], "/".into()));
    }

    #[test]
    fn an_explicit_group_is_the_only_one() {
        assert_eq!(ids("app:extra"), (1000, 7, vec![7], "/home/app".into()));
        assert_eq!(ids("1000:55"), (1000, 55, vec![55], "/home/app".into()));
    }

    #[test]
    fn unknown_names_are_errors() {
        assert!(identity(&tree(), "nobody").unwrap_err().to_string().contains("user 'nobody'"));
        assert!(identity(&tree(), "app:none").unwrap_err().to_string().contains("group 'none'"));
        assert!(identity(&Tree::new(), "app").is_err());
        assert_eq!(identity(&Tree::new(), "").unwrap().uid, 0);
    }

    #[test]
    fn owners_need_no_lookup_when_they_are_numbers() {
        let tree = tree();
        assert_eq!(owner(&tree, "5"), Ok((5, 5)));
        assert_eq!(owner(&tree, "1000"), Ok((1000, 1000)));
        assert_eq!(owner(&tree, "app"), Ok((1000, 1001)));
        assert_eq!(owner(&tree, "app:root"), Ok((1000, 0)));
        assert_eq!(owner(&tree, "5:extra"), Ok((5, 7)));
        assert_eq!(owner(&tree, ""), Ok((0, 0)));
        assert_eq!(owner(&tree, "app:"), Ok((1000, 0)));
        assert_eq!(owner(&tree, ":extra"), Ok((0, 7)));
        assert!(owner(&tree, "none").is_err());
        assert_eq!(owner(&Tree::new(), "root:root"), Ok((0, 0)));
        assert_eq!(owner(&Tree::new(), "root"), Ok((0, 0)));
    }
}
