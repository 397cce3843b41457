//! A folder that forgets what was not synced.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use revoada_agent::Disk;
use revoada_agent::LocalDisk;

/// What a power cut leaves of what was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    /// Neither names nor bytes.
    Nothing,
    /// Names, but files have the bytes they had when they were last synced: none, if they never were.
    Names,
    /// Everything: only the process was killed.
    Everything,
}

impl Left {
    pub(crate) const ALL: [Self; 3] = [Self::Nothing, Self::Names, Self::Everything];
}

/// What happens at one operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// It happens half or not at all, and nothing after it does.
    PowerLoss,
    /// It alone fails.
    Fails(ErrorKind),
}

/// A real folder, and beside it what would be left of it. Clones are the same disk.
#[derive(Clone, Debug)]
pub(crate) struct LossyDisk(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    nodes: Vec<Node>,
    operations: u64,
    trouble: Option<(u64, Trouble)>,
    has_power: bool,
    free_bytes: u64,
}

#[derive(Debug)]
enum Node {
    File { durable: Vec<u8> },
    Folder { names: Names, durable: Names },
}

type Names = BTreeMap<String, usize>;

impl LossyDisk {
    /// Over an empty folder.
    pub(crate) fn new(root: &Path) -> Self {
        let folder = Node::Folder { names: Names::new(), durable: Names::new() };
        Self(Arc::new(Mutex::new(Inner {
            root: root.to_owned(),
            nodes: vec![folder],
            operations: 0,
            trouble: None,
            has_power: true,
            free_bytes: u64::MAX,
        })))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }

    /// Operations so far.
    pub(crate) fn operations(&self) -> u64 {
        self.inner().operations
    }

    /// Lets something happen at the operation that comes after so many others, in place of what was to happen.
    pub(crate) fn trouble_after(&self, others: u64, trouble: Trouble) {
        let mut inner = self.inner();
        inner.trouble = Some((inner.operations + others + 1, trouble));
    }

    pub(crate) fn no_trouble(&self) {
        self.inner().trouble = None;
    }

    pub(crate) fn set_free_bytes(&self, free_bytes: u64) {
        self.inner().free_bytes = free_bytes;
    }

    pub(crate) fn has_power(&self) -> bool {
        self.inner().has_power
    }

    /// Cuts the power, if it is not cut yet, and gives it again: the folder has what is left.
    pub(crate) fn reboot(&self, left: Left) {
        let mut inner = self.inner();
        let inner = &mut *inner;
        (inner.has_power, inner.trouble) = (true, None);
        if left == Left::Everything {
            // Not all of it is durable, and the next cut may still take it.
            return;
        }
        let before = std::mem::take(&mut inner.nodes);
        inner.nodes.push(Node::Folder { names: Names::new(), durable: Names::new() });
        let rebuilt = inner.root.with_extension("rebuilt");
        fs::create_dir(&rebuilt).unwrap();
        rebuild(&before, 0, left, &rebuilt, &mut inner.nodes, 0);
        fs::remove_dir_all(&inner.root).unwrap();
        fs::rename(&rebuilt, &inner.root).unwrap();
    }
}

fn rebuild(before: &[Node], node: usize, left: Left, target: &Path, nodes: &mut Vec<Node>, place: usize) {
    let Node::Folder { names, durable } = &before[node] else { unreachable!("only folders are rebuilt by name") };
    for (name, child) in if left == Left::Nothing { durable } else { names } {
        let (path, index) = (target.join(name), nodes.len());
        match &before[*child] {
            Node::File { durable } => {
                fs::write(&path, durable).unwrap();
                nodes.push(Node::File { durable: durable.clone() });
            }
            Node::Folder { .. } => {
                fs::create_dir(&path).unwrap();
                nodes.push(Node::Folder { names: Names::new(), durable: Names::new() });
                rebuild(before, *child, left, &path, nodes, index);
            }
        }
        let Node::Folder { names, durable } = &mut nodes[place] else { unreachable!("it was made a folder") };
        names.insert(name.clone(), index);
        durable.insert(name.clone(), index);
    }
}

impl Inner {
    /// Counts an operation and fails where trouble is due.
    fn operate(&mut self) -> io::Result<()> {
        if !self.has_power {
            return Err(io::Error::other("there is no power"));
        }
        self.operations += 1;
        match self.trouble.take_if(|(at, _)| *at == self.operations) {
            None => Ok(()),
            Some((_, Trouble::Fails(kind))) => Err(kind.into()),
            Some((_, Trouble::PowerLoss)) => {
                self.has_power = false;
                Err(io::Error::other("the power is cut"))
            }
        }
    }

    /// The folder that a path lies in, and its name there.
    fn split(&self, path: &Path) -> (usize, String) {
        let inside = path.strip_prefix(&self.root).unwrap();
        let name = inside.file_name().unwrap().to_str().unwrap().to_owned();
        let folder = inside.parent().unwrap().iter().fold(0, |folder, name| match &self.nodes[folder] {
            Node::Folder { names, .. } => names[name.to_str().unwrap()],
            Node::File { .. } => panic!("`{}` lies in a file", path.display()),
        });
        (folder, name)
    }

    fn names(&mut self, folder: usize) -> &mut Names {
        match &mut self.nodes[folder] {
            Node::Folder { names, .. } => names,
            Node::File { .. } => panic!("a file has no names"),
        }
    }

    fn remove(&mut self, path: &Path) {
        let (folder, name) = self.split(path);
        self.names(folder).remove(&name).unwrap();
    }

    fn add_file(&mut self, path: &Path) {
        let (folder, name) = self.split(path);
        let index = self.nodes.len();
        if let std::collections::btree_map::Entry::Vacant(entry) = self.names(folder).entry(name) {
            entry.insert(index);
            self.nodes.push(Node::File { durable: Vec::new() });
        }
    }

    fn append(&mut self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let operated = self.operate();
        let written = if operated.is_ok() { bytes } else { &bytes[..bytes.len() / 2] };
        if operated.is_ok() || !written.is_empty() {
            LocalDisk.append(path, written)?;
            self.add_file(path);
        }
        operated
    }

    fn sync_file(&mut self, path: &Path) -> io::Result<()> {
        self.operate()?;
        let (folder, name) = self.split(path);
        let node = self.names(folder)[&name];
        self.nodes[node] = Node::File { durable: fs::read(path)? };
        Ok(())
    }

    fn sync_folder_of(&mut self, path: &Path) -> io::Result<()> {
        self.operate()?;
        let (folder, _) = self.split(path);
        let Node::Folder { names, durable } = &mut self.nodes[folder] else { panic!("a file has no names") };
        durable.clone_from(names);
        Ok(())
    }

    fn rename(&mut self, source: &Path, target: &Path) -> io::Result<()> {
        self.operate()?;
        LocalDisk.rename(source, target)?;
        let ((from, name), (to, new_name)) = (self.split(source), self.split(target));
        let node = self.names(from).remove(&name).unwrap();
        self.names(to).insert(new_name, node);
        Ok(())
    }
}

impl Disk for LossyDisk {
    fn free_bytes(&self, _: &Path) -> io::Result<u64> {
        Ok(self.inner().free_bytes)
    }

    fn create_folder(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        inner.operate()?;
        LocalDisk.create_folder(path)?;
        let (folder, name) = inner.split(path);
        let index = inner.nodes.len();
        inner.names(folder).insert(name, index);
        inner.nodes.push(Node::Folder { names: Names::new(), durable: Names::new() });
        Ok(())
    }

    fn append(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.inner().append(path, bytes)
    }

    fn sync_file(&self, path: &Path) -> io::Result<()> {
        self.inner().sync_file(path)
    }

    fn sync_folder_of(&self, path: &Path) -> io::Result<()> {
        self.inner().sync_folder_of(path)
    }

    fn rename(&self, source: &Path, target: &Path) -> io::Result<()> {
        self.inner().rename(source, target)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        inner.operate()?;
        LocalDisk.remove_file(path)?;
        inner.remove(path);
        Ok(())
    }

    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        inner.operate()?;
        LocalDisk.remove_folder(path)?;
        inner.remove(path);
        Ok(())
    }

    /// The four operations of `revoada_bundle::partial`, each of which can be interrupted.
    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut inner = self.inner();
        let partial = path.with_file_name(format!(".{}.partial", path.file_name().unwrap().to_str().unwrap()));
        if partial.exists() {
            fs::remove_file(&partial)?;
            inner.remove(&partial);
        }
        let written = inner.append(&partial, bytes).and_then(|()| inner.sync_file(&partial));
        let renamed = written.and_then(|()| inner.rename(&partial, path));
        if renamed.is_err() && inner.has_power && partial.exists() {
            fs::remove_file(&partial)?;
            inner.remove(&partial);
        }
        renamed.and_then(|()| inner.sync_folder_of(path))
    }
}
