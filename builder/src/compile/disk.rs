//! Whether there is room for a build's files, before it begins.

use std::path::Path;

use super::CompileError;

/// A model is written once for the compiler, and its plan three times: as TensorRT gives it, into the cache, and where
/// it is wanted.
const COPIES_OF_PLAN: u64 = 3;
/// Plans carry their kernels: those of small networks were 5 to 71 MB.
const PLAN_BYTES_MIN: u64 = 64 << 20;

/// Refuses a build in a folder whose disk has no room for it. Where the system does not tell, the build finds out.
pub(super) fn check(folder: &Path, model_bytes: u64) -> Result<(), CompileError> {
    let plan = model_bytes.max(PLAN_BYTES_MIN);
    let needed = plan.saturating_mul(COPIES_OF_PLAN).saturating_add(model_bytes);
    match rustix::fs::statvfs(folder) {
        Ok(disk) if disk.f_bavail.saturating_mul(disk.f_frsize) < needed => Err(CompileError::TooLittleDisk {
            folder: folder.to_owned(),
            needed_mib: needed >> 20,
            available_mib: disk.f_bavail.saturating_mul(disk.f_frsize) >> 20,
        }),
        Ok(_) => Ok(()),
        Err(error) => {
            tracing::debug!(folder = %folder.display(), %error, "cannot tell how much room there is");
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_that_the_disk_cannot_hold_is_refused_with_both_numbers() {
        let folder = tempfile::tempdir().unwrap();
        check(folder.path(), 1).unwrap();
        let error = check(folder.path(), u64::MAX / 8).unwrap_err().to_string();
        assert!(error.starts_with("the build needs about ") && error.contains("MiB in `/"), "{error}");
    }
}
