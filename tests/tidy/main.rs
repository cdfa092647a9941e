//! The rules of the repository, as tests: what a compiler does not check and a reviewer forgets.

mod invariants;
mod layers;
mod names;
mod protos;
mod sources;
