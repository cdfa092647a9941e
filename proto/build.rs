//! Compiles our `.proto` files with a compiler written in Rust, so that nobody installs protoc.

use std::error::Error;
use std::path::{Path, PathBuf};

use prost::Message;

/// Folders of `.proto` files; each is an import root, so file names are unique across them.
const ROOTS: [&str; 3] = ["etcd", "milvus", "quorate/v1"];

fn main() -> Result<(), Box<dyn Error>> {
    let mut files = Vec::new();
    for root in ROOTS {
        println!("cargo:rerun-if-changed={root}");
        files.extend(proto_files(Path::new(root))?);
    }
    let out_dir = PathBuf::from(std::env::var("OUT_DIR")?);
    let descriptors = protox::compile(&files, ROOTS)?;
    std::fs::write(out_dir.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        // Keys, values and payloads are shared slices of the buffer that they arrived in.
        .bytes(".")
        // Replicated bytes must not depend on hash order.
        .btree_map(".")
        .include_file("packages.rs")
        .compile_fds(descriptors)?;
    Ok(())
}

fn proto_files(root: &Path) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(root)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "proto") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
