//! Writes the context of a case of `fixtures/dialect` into a new directory, for builds by hand: `case NAME DIRECTORY`.

use std::error::Error;
use std::fs;
use std::path::Path;

use yadokari_tests::dialect;
use yadokari_tests::fixture;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(name), Some(directory)) = (arguments.next(), arguments.next()) else {
        return Err("two arguments are needed: the name of a case, and a directory that is made".into());
    };
    let common = dialect::common(&fixture("dialect"))?;
    let cases = dialect::cases(&fixture("dialect"))?;
    let case = cases.iter().find(|case| case.name == name).ok_or("there is no case of this name")?;
    fs::create_dir(&directory)?;
    case.write(&common, Path::new(&directory))?;
    println!("{} --file {}/{} {directory}", case.options.join(" "), directory, case.dockerfile);
    Ok(())
}
