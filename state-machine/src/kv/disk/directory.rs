//! Which store of a directory is in use.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::attachment::replace_file;
use crate::machine::MachineError;

const CURRENT: &str = "current";
const STORE_PREFIX: &str = "store-";

/// Where the store of that number is.
pub(super) fn store_path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("{STORE_PREFIX}{number}"))
}

/// Number of the store in use; a new directory gets the first.
pub(super) fn current_store(directory: &Path) -> Result<u64, MachineError> {
    if let Some(number) = read_current(directory)? {
        return Ok(number);
    }
    if !stores(directory).map_err(MachineError::storage("listing the stores"))?.is_empty() {
        let what = format!("{} is missing beside its stores", directory.join(CURRENT).display());
        return Err(MachineError::Damaged { doing: "opening the store", what });
    }
    write_current(directory, 1).map_err(MachineError::storage("writing a new directory"))?;
    Ok(1)
}

/// The number that is written down, if there is one.
pub(super) fn read_current(directory: &Path) -> Result<Option<u64>, MachineError> {
    let path = directory.join(CURRENT);
    let doing = "opening the store";
    match fs::read_to_string(&path) {
        Ok(text) => text.trim().parse().map(Some).map_err(|_not_a_number| MachineError::Damaged {
            doing,
            what: format!("{} holds no number", path.display()),
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(MachineError::storage(doing)(error)),
    }
}

pub(super) fn write_current(directory: &Path, number: u64) -> io::Result<()> {
    replace_file(&directory.join(CURRENT), format!("{number}\n").as_bytes())
}

/// Numbers of the stores in a directory, ascending.
fn stores(directory: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for item in fs::read_dir(directory)? {
        let name = item?.file_name();
        let number =
            name.to_str().and_then(|name| name.strip_prefix(STORE_PREFIX)?.parse::<u64>().ok());
        numbers.extend(number);
    }
    numbers.sort_unstable();
    Ok(numbers)
}

pub(super) fn remove_other_stores(directory: &Path, current: u64) -> io::Result<()> {
    for number in stores(directory)?.into_iter().filter(|number| *number != current) {
        fs::remove_dir_all(store_path(directory, number))?;
    }
    Ok(())
}
