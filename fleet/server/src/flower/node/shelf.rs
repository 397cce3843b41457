//! Objects that are made once for all nodes, for as long as there is somebody to send them to.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::OnceCell;
use tokio::task::spawn_blocking;
use tracing::error;

use super::refusal::Refusal;
use crate::flower::outgoing::Arrays;
use crate::learning::Sheet;

/// There are as many as runs have weights that somebody still holds: a few.
#[derive(Debug, Default)]
pub(super) struct Shelf(Mutex<Vec<Shelved>>);

#[derive(Debug)]
struct Shelved {
    sheet: Weak<Sheet>,
    arrays: Arc<OnceCell<Arc<Arrays>>>,
}

impl Shelf {
    fn lock(&self) -> MutexGuard<'_, Vec<Shelved>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets go of what nobody will ask for any more.
    pub(super) fn tidy(&self) {
        self.lock().retain(|shelved| shelved.sheet.strong_count() > 0);
    }

    /// Made by the first who asks, while the others wait for it.
    pub(super) async fn arrays(&self, sheet: &Arc<Sheet>) -> Result<Arc<Arrays>, Refusal> {
        self.tidy();
        let cell = {
            let mut shelf = self.lock();
            match shelf.iter().find(|shelved| std::ptr::eq(shelved.sheet.as_ptr(), Arc::as_ptr(sheet))) {
                Some(shelved) => Arc::clone(&shelved.arrays),
                None => {
                    let arrays = Arc::<OnceCell<_>>::default();
                    shelf.push(Shelved { sheet: Arc::downgrade(sheet), arrays: Arc::clone(&arrays) });
                    arrays
                }
            }
        };
        let made = cell.get_or_try_init(|| {
            let sheet = Arc::clone(sheet);
            async move { spawn_blocking(move || Arc::new(Arrays::new(&sheet))).await }
        });
        made.await.cloned().map_err(|error| {
            error!(%error, "objects for SuperNodes could not be made");
            Refusal::Busy("the message could not be made".to_owned())
        })
    }
}
