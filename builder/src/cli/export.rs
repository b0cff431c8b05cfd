//! `--output`: the root file system besides the image, in BuildKit's words.

use std::path::PathBuf;

use clap::Args;

use crate::Error;
use crate::csv;
use crate::output::Export;

/// Where the root file system goes.
#[derive(Debug, Args)]
pub(super) struct ExportFlags {
    /// Write the files of the result to a directory (type=local,dest=DIR, or DIR alone) or to a tar (type=tar,dest=FILE; -
    /// is the standard output). Repeatable. Without --destination nothing is pushed then.
    #[arg(long, short = 'o', value_name = "type=local|tar,dest=PATH")]
    pub(super) output: Vec<String>,
}

impl ExportFlags {
    /// What is exported. `several` says that there are several platforms.
    pub(super) fn exports(&self, several: bool) -> Result<Vec<Export>, Error> {
        let given = self.output.iter().filter(|text| !text.is_empty());
        let exports = given.map(|text| parse(text)).collect::<Result<Vec<_>, _>>()?;
        if several && exports.iter().any(|export| !matches!(export, Export::Directory(_))) {
            return Err(refuse("a tar holds one platform; give one --platform, or type=local".into()));
        }
        Ok(exports)
    }
}

fn refuse(message: String) -> Error {
    Error::Usage { flag: "--output", message }
}

fn parse(text: &str) -> Result<Export, Error> {
    if text == "-" {
        return Ok(Export::StandardOutput);
    }
    let fields = csv::fields(text).map_err(|error| refuse(format!("'{text}': {}", error.message)))?;
    if let [only] = &fields[..]
        && !only.text.contains('=')
    {
        return Ok(Export::Directory(PathBuf::from(&only.text)));
    }
    let (mut kind, mut dest) = (None, None);
    for field in &fields {
        match field.text.split_once('=') {
            Some(("type", value)) => kind = Some(value),
            Some(("dest", value)) => dest = Some(value),
            _ => return Err(refuse(format!("'{text}': there are type and dest, and no '{}'", field.text))),
        }
    }
    let dest = dest.filter(|dest| !dest.is_empty());
    match (kind, dest) {
        (Some("local"), Some(dest)) if dest != "-" => Ok(Export::Directory(dest.into())),
        (Some("local"), _) => Err(refuse(format!("'{text}': it needs dest=DIR"))),
        (Some("tar"), Some("-") | None) => Ok(Export::StandardOutput),
        (Some("tar"), Some(dest)) => Ok(Export::Archive(dest.into())),
        (Some("image" | "registry"), _) => Err(refuse(format!("'{text}': write --destination instead"))),
        (Some("docker"), _) => Err(refuse(format!("'{text}': write --tar-path instead"))),
        (Some("oci"), _) => Err(refuse(format!("'{text}': write --oci-layout-path instead"))),
        _ => Err(refuse(format!("'{text}': the type is local or tar"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exports(texts: &[&str], several: bool) -> Result<Vec<Export>, String> {
        let output = texts.iter().map(|text| (*text).to_owned()).collect();
        ExportFlags { output }.exports(several).map_err(|error| error.to_string())
    }

    #[test]
    fn outputs_are_written_as_for_buildkit() {
        let directory = |path: &str| Export::Directory(path.into());
        for (text, expected) in [
            ("out", directory("out")),
            ("type=local,dest=out", directory("out")),
            ("\"dest=a,b\",type=local", directory("a,b")),
            ("type=tar,dest=out.tar", Export::Archive("out.tar".into())),
            ("type=tar,dest=-", Export::StandardOutput),
            ("type=tar", Export::StandardOutput),
            ("-", Export::StandardOutput),
        ] {
            assert_eq!(exports(&[text, ""], false), Ok(vec![expected]), "{text}");
        }
        assert_eq!(exports(&[], true), Ok(vec![]));
        assert_eq!(exports(&["out"], true), Ok(vec![directory("out")]));
    }

    #[test]
    fn other_outputs_are_refused_with_what_stands_for_them() {
        for (text, several, says) in [
            ("type=image,name=r/i,push=true", false, "no 'name=r/i'"),
            ("type=registry", false, "--destination"),
            ("type=docker,dest=x", false, "--tar-path"),
            ("type=oci,dest=x", false, "--oci-layout-path"),
            ("type=local", false, "dest=DIR"),
            ("type=local,dest=-", false, "dest=DIR"),
            ("dest=x", false, "the type is local or tar"),
            ("type=zip,dest=x", false, "the type is local or tar"),
            ("type=tar,dest=x", true, "one platform"),
            ("a\"b", false, "quote"),
        ] {
            let error = exports(&[text], several).unwrap_err();
            assert!(error.starts_with("--output: ") && error.contains(says), "{text}: {error}");
        }
    }
}
