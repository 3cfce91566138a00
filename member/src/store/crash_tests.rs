//! The file against power cuts at every operation: it is the old one or the new one, whatever is lost.

use std::cell::RefCell;
use std::collections::BTreeMap;

use super::*;

/// How often the file is replaced: with five operations each, more than two hundred operations.
const SAVES: u64 = 100;

/// Names and files, each as a process sees them and as they are durable. Files are known by number.
#[derive(Clone, Debug, Default)]
struct Image {
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    /// Names as they were after each change since the last sync of the directory.
    name_changes: Vec<BTreeMap<PathBuf, usize>>,
    /// What is seen, and whether it is durable.
    files: Vec<(Vec<u8>, bool)>,
}

impl Image {
    fn change_names(&mut self, change: impl FnOnce(&mut BTreeMap<PathBuf, usize>)) {
        change(&mut self.names);
        self.name_changes.push(self.names.clone());
    }

    /// The disks that a power cut may leave: any number of the changes of names, and any part of the file that was not synced.
    fn after_power_cut(&self) -> Vec<Self> {
        let names = [&self.durable_names].into_iter().chain(&self.name_changes);
        let open = self.files.iter().position(|(_, is_durable)| !is_durable);
        let length = open.map_or(0, |open| self.files[open].0.len());
        let with = |names: &BTreeMap<PathBuf, usize>, length: usize| {
            let mut files = self.files.clone();
            if let Some(open) = open {
                files[open].0.truncate(length);
            }
            Self { names: names.clone(), files, ..Self::default() }
        };
        names.flat_map(|names| (0..=length).map(|length| with(names, length))).collect()
    }
}

/// Keeps the image after each operation.
#[derive(Default)]
struct LosingDisk {
    now: RefCell<Image>,
    moments: RefCell<Vec<Image>>,
}

impl LosingDisk {
    fn change(&self, change: impl FnOnce(&mut Image)) {
        change(&mut self.now.borrow_mut());
        self.moments.borrow_mut().push(self.now.borrow().clone());
    }
}

impl Disk for LosingDisk {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let image = self.now.borrow();
        let file = image.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(image.files[*file].0.clone())
    }

    fn write_synced(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.change(|image| {
            let file = image.files.len();
            image.files.push((Vec::new(), false));
            image.change_names(|names| {
                names.insert(path.to_owned(), file);
            });
        });
        self.change(|image| image.files.last_mut().expect("created").0 = bytes.to_vec());
        self.change(|image| image.files.last_mut().expect("created").1 = true);
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change(|image| {
            image.change_names(|names| {
                let file = names.remove(from).expect("it is there");
                names.insert(to.to_owned(), file);
            });
        });
        Ok(())
    }

    fn sync_directory(&self, _directory: &Path) -> io::Result<()> {
        self.change(|image| {
            image.durable_names = image.names.clone();
            image.name_changes.clear();
        });
        Ok(())
    }
}

fn saved(number: u64) -> Saved {
    let role = "r".repeat(usize::try_from(number % 7).expect("small"));
    let tags = Tags { cluster: Some(9), role, ..Tags::default() };
    Saved { id: MemberId(7), reserved: Incarnation(number * 1000), tags }
}

#[test]
fn a_power_cut_at_any_operation_leaves_the_old_file_or_the_new_one() {
    let (disk, directory) = (LosingDisk::default(), Path::new("/member"));
    let (mut operations, mut images) = (0, 0);
    for number in 1..=SAVES {
        let before = (number > 1).then(|| saved(number - 1));
        replace(&disk, directory, &saved(number)).unwrap();
        let moments = disk.moments.take();
        let count = moments.len();
        for (at, moment) in moments.into_iter().enumerate() {
            for image in moment.after_power_cut() {
                let image = LosingDisk { now: image.into(), ..LosingDisk::default() };
                let found = load(&image, directory).unwrap();
                let is_new = found == Some(saved(number));
                assert!(is_new || found == before, "save {number}, operation {at}: {found:?}");
                assert!(is_new || at + 1 < count, "save {number} was acknowledged");
                replace(&image, directory, &saved(number + 1)).unwrap();
                images += 1;
            }
        }
        operations += count;
    }
    assert!(operations >= 200 && images >= 5_000, "{operations} operations, {images} images");
}
