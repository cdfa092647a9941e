//! Disks of their own for the nodes, which can be made to hang. Needs root and Linux.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// What one holds.
const SIZE: &str = "2G";

/// A file system in a file, mounted until it is dropped.
#[derive(Debug)]
pub struct Disk {
    mounted_at: PathBuf,
    is_frozen: bool,
}

impl Disk {
    /// Makes one and mounts it, as a folder that is made, too.
    ///
    /// # Errors
    /// Not root, or the tools of ext4 are not installed.
    pub fn mount(at: &Path) -> Result<Disk> {
        std::fs::create_dir_all(at).with_context(|| format!("making {}", at.display()))?;
        let image = at.with_extension("ext4");
        run(Command::new("truncate").args(["--size", SIZE]).arg(&image))?;
        run(Command::new("mkfs.ext4").arg("-q").arg(&image))?;
        run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(at))?;
        Ok(Disk { mounted_at: at.to_owned(), is_frozen: false })
    }

    /// As [`Disk::mount`] with so many bytes, none of which is kept for root, and empty.
    ///
    /// # Errors
    /// As [`Disk::mount`].
    pub fn mount_sized(at: &Path, n_bytes: u64) -> Result<Disk> {
        std::fs::create_dir_all(at).with_context(|| format!("making {}", at.display()))?;
        let image = at.with_extension("ext4");
        run(Command::new("truncate").args(["--size", &n_bytes.to_string()]).arg(&image))?;
        run(Command::new("mkfs.ext4").args(["-q", "-m", "0"]).arg(&image))?;
        run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(at))?;
        let disk = Disk { mounted_at: at.to_owned(), is_frozen: false };
        std::fs::remove_dir(at.join("lost+found")).context("removing lost+found")?;
        Ok(disk)
    }

    /// Every write waits from now on.
    ///
    /// # Errors
    /// The kernel's.
    pub fn freeze(&mut self) -> Result<()> {
        run(Command::new("fsfreeze").arg("--freeze").arg(&self.mounted_at))?;
        self.is_frozen = true;
        Ok(())
    }

    /// Writes that waited go on.
    ///
    /// # Errors
    /// The kernel's.
    pub fn thaw(&mut self) -> Result<()> {
        if !self.is_frozen {
            return Ok(());
        }
        run(Command::new("fsfreeze").arg("--unfreeze").arg(&self.mounted_at))?;
        self.is_frozen = false;
        Ok(())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Where this fails there is nobody left to tell.
        let _ = self.thaw();
        let _ = run(Command::new("umount").arg(&self.mounted_at));
    }
}

fn run(command: &mut Command) -> Result<()> {
    let line = format!("{command:?}");
    let output = command.output().with_context(|| format!("running {line}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{line}: {}", said.trim());
    Ok(())
}
